// Which kernels this processor can run. Needs no Paddle.
#pragma once

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <vector>

#include "blocks.h"

namespace cait {

struct InstructionSet {
  const char* name;
  bool there;  // in this processor
  const Kernels *with_float, *with_bf16;
};

#ifdef __x86_64__
// Whether there are products of bfloat16 pairs in vectors, which older compilers cannot ask for by name.
inline bool has_avx512_bf16() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

// Whether there is a matrix unit for bfloat16, and Linux lets this process use it, which must ask for it.
inline bool may_use_amx() {
  constexpr unsigned kTilesAndBf16 = 1u << 24 | 1u << 22;
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTilesAndBf16) == kTilesAndBf16 &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#endif

// Best first.
inline std::vector<InstructionSet> find_instruction_sets() {
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx512_bf16 = avx512 && cait::avx512_bf16_dot && has_avx512_bf16();
  const bool amx = avx512_bf16 && cait::amx_bf16 && may_use_amx();
#else
  const bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;
#endif
  return {
      {"amx", amx, cait::amx_float, cait::amx_bf16},
      {"avx512_bf16", avx512_bf16, cait::avx512_float, cait::avx512_bf16_dot},
      {"avx512", avx512, cait::avx512_float, cait::avx512_bf16},
      {"avx2", avx2, cait::avx2_float, cait::avx2_bf16},
      {"portable", true, cait::portable_float, cait::portable_bf16},
  };
}

}  // namespace cait
