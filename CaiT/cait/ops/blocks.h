// What the operators and their kernels for each instruction set agree on.
//
// Sizes that the kernels see are multiples of 16 (`padded`): what is added has weights of zero and stays zero.
#pragma once

// What the kernels need of the system is here, before any of their files chooses an instruction set: inline functions
// of these headers must run on every processor.
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>

namespace cait {

constexpr int kPanel = 16;      // columns of a weight panel
constexpr int kMostHeads = 64;  // that the kernels keep room for

inline int padded(int size) { return (size + kPanel - 1) / kPanel * kPanel; }

// One model's sizes.
struct Shape {
  int tokens, dim, heads, head_dim, hidden, depth;

  int width() const { return padded(dim); }
  int head_width() const { return padded(head_dim); }
  int attention_width() const { return heads * head_width(); }
  int hidden_width() const { return padded(hidden); }
  // Elements of one block's packed matrices: qkv, proj, fc1, fc2, each as panels [columns / 16][rows][16].
  std::size_t panel_elements() const {
    return static_cast<std::size_t>(width()) * (4 * attention_width() + 2 * hidden_width());
  }
  // Floats of one block's vectors: the biases of qkv, proj, fc1 and fc2, then the mixing matrices proj_l and proj_w
  // [from head][to head] and the bias of proj_w.
  std::size_t vector_elements() const {
    return 3 * attention_width() + 2 * width() + hidden_width() + 2 * heads * heads + heads;
  }
  // The same of a class-attention block, whose matrices take as much room: the biases of q, v, proj, fc1 and fc2.
  std::size_t class_vector_elements() const { return 2 * attention_width() + 2 * width() + hidden_width(); }
};

// Where the threads of one call wait for each other, once a block. It spins, for a block takes less than a
// millisecond, and gives way after a while, for there may be more threads than cores.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  void wait() {
    const int turn = turn_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spin = 0; turn_.load(std::memory_order_acquire) == turn; ++spin) {
      if (spin > 20000) std::this_thread::yield();
    }
  }

 private:
  const int threads_;
  std::atomic<int> arrived_{0};
  std::atomic<int> turn_{0};
};

// What the threads of one call share, and which of them this is.
struct Team {
  char* scratch;  // as many bytes as the kernel asks for, on a 64-byte boundary
  int thread, threads;
  Barrier* barrier;
};

// Images [images, channels, height, width] -> patches [images, tokens, dim].
struct PatchCall {
  int images, channels, height, width, patch, dim;
  const float* input;
  const float* positions;  // [tokens, dim], with the bias of the projection
  const void* panels;      // [channels * patch * patch] rows, padded
  float* output;
};

// The self-attention blocks: [images, tokens, dim] -> the same.
struct BlockCall {
  Shape shape;
  int images;
  const float* input;
  const float* vectors;  // [depth, vector_elements()]
  const void* panels;    // [depth, panel_elements()]
  float* output;
};

// The class-attention blocks: patches [images, tokens, dim] -> class token [images, dim], and the attention
// [images, depth, heads, 1 + tokens]. Panels and vectors: see `ClassWeights`.
struct ClassCall {
  Shape shape;
  int images;
  const float* input;
  const float* token;  // [dim]
  const float* vectors;
  const void* panels;
  float* output;
  float* attention;
};

// What one instruction set offers: for each call, the scratch memory of all threads and one thread's share of the work.
struct Kernels {
  std::size_t (*patch_scratch)(const PatchCall&, int threads);
  void (*patches)(const PatchCall&, const Team&);
  std::size_t (*block_scratch)(const BlockCall&, int threads);
  void (*blocks)(const BlockCall&, const Team&);
  std::size_t (*class_scratch)(const ClassCall&, int threads);
  void (*class_blocks)(const ClassCall&, const Team&);
};

// Null where the compiler knows no such instructions.
extern const Kernels *const portable_float, *const portable_bf16, *const avx2_float, *const avx2_bf16,
    *const avx512_float, *const avx512_bf16, *const avx512_bf16_dot, *const amx_float, *const amx_bf16;

}  // namespace cait
