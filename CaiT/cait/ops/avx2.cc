// The blocks for x86 processors with AVX2 and FMA.
#include "blocks.h"

#ifdef __x86_64__
#pragma GCC target("avx2,fma")
#define CAIT_LANES 8
#define CAIT_TILE_ROWS 6
#define CAIT_TILE_VECTORS 2
#include "kernels.h"

namespace cait {
const Kernels *const avx2_float = &kKernels<float>, *const avx2_bf16 = &kKernels<Bf16>;
}  // namespace cait
#else
namespace cait {
const Kernels *const avx2_float = nullptr, *const avx2_bf16 = nullptr;
}  // namespace cait
#endif
