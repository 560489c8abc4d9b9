// The blocks for x86 processors with AVX-512.
#include "blocks.h"

#ifdef __x86_64__
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#define CAIT_LANES 16
#define CAIT_TILE_ROWS 14
#define CAIT_TILE_VECTORS 2
#include "kernels.h"

namespace cait {
const Kernels *const avx512_float = &kKernels<float>, *const avx512_bf16 = &kKernels<Bf16>;
}  // namespace cait
#else
namespace cait {
const Kernels *const avx512_float = nullptr, *const avx512_bf16 = nullptr;
}  // namespace cait
#endif
