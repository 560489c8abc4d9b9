// The blocks for any processor.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "blocks.h"

#define CAIT_LANES 4
#define CAIT_TILE_ROWS 2
#define CAIT_TILE_VECTORS 4

namespace cait {
namespace {
#include "simd.h"
#include "product.h"
#include "vector_tile.h"
#include "rows.h"
#include "self_attention.h"
#include "ends.h"
}  // namespace

const Kernels *const portable_float = kernels<float>(), *const portable_bf16 = kernels<Bf16>();
}  // namespace cait
