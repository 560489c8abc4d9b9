// The blocks for x86 processors with a matrix unit (AMX) for bfloat16.
#include "blocks.h"

// Compilers that know it have one of these headers.
#if defined(__x86_64__) && (__has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>))
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,fma,prefer-vector-width=512")
#define CAIT_LANES 16
#define CAIT_TILE_ROWS 14
#define CAIT_TILE_VECTORS 2
#define CAIT_BF16_DOT
#define CAIT_MATRIX_UNIT
#include "kernels.h"

namespace cait {
const Kernels *const amx_float = &kKernels<float>, *const amx_bf16 = &kKernels<Bf16>;
}  // namespace cait
#else
namespace cait {
const Kernels *const amx_float = nullptr, *const amx_bf16 = nullptr;
}  // namespace cait
#endif
