// The blocks for x86 processors with AVX2 and FMA.
// The system's headers come before the pragma: their inline functions must run anywhere.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "blocks.h"

#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#define CAIT_LANES 8
#define CAIT_TILE_ROWS 6
#define CAIT_TILE_VECTORS 2

namespace cait {
namespace {
#include "simd.h"
#include "product.h"
#include "vector_tile.h"
#include "rows.h"
#include "self_attention.h"
#include "ends.h"
}  // namespace

const Kernels *const avx2_float = kernels<float>(), *const avx2_bf16 = kernels<Bf16>();
}  // namespace cait
#else
namespace cait {
const Kernels *const avx2_float = nullptr, *const avx2_bf16 = nullptr;
}  // namespace cait
#endif
