// The bfloat16 blocks for x86 processors with AVX-512 and its products of bfloat16 pairs.
#include "blocks.h"

// Compilers that know these have that header.
#if defined(__x86_64__) && __has_include(<avx512bf16intrin.h>)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,prefer-vector-width=512")
#define CAIT_LANES 16
#define CAIT_TILE_ROWS 14
#define CAIT_TILE_VECTORS 2
#define CAIT_BF16_DOT
#include "kernels.h"

namespace cait {
const Kernels *const avx512_bf16_dot = &kKernels<Bf16>;
}  // namespace cait
#else
namespace cait {
const Kernels *const avx512_bf16_dot = nullptr;
}  // namespace cait
#endif
