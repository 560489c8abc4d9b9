// Vectors of the instruction set that the including file has chosen: CAIT_LANES floats each.
// Written with the vector extension of GCC and Clang, so that one text serves every instruction set.

typedef float Floats __attribute__((vector_size(4 * CAIT_LANES)));
typedef std::int32_t Ints __attribute__((vector_size(4 * CAIT_LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * CAIT_LANES)));
struct Bf16 {
  std::uint16_t bits;
};
// What rows of T are kept as that will be multiplied by weights.
template <class T>
struct Rows {
  typedef T Type;
};
template <class T>
using Row = typename Rows<T>::Type;

constexpr int kLanes = CAIT_LANES;

template <class V, class P>
inline V load_as(const P* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
inline Floats load(const float* from) { return load_as<Floats>(from); }
template <class V, class P>
inline void store_as(P* to, V value) {
  std::memcpy(to, &value, sizeof value);
}
inline Floats all(float value) { return value - Floats{}; }
inline Ints all(std::int32_t value) { return value - Ints{}; }

inline float sum(Floats v) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}
inline float largest(Floats v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

// The upper halves of the words are the bfloat16, rounded to nearest even.
inline Ints rounded_bits(Floats v) {
  const Ints bits = (Ints)v;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

inline void store(float* to, Floats v) { store_as(to, v); }
inline void store(Bf16* to, Floats v) {
#ifdef CAIT_BF16_DOT
  store_as(to, _mm512_cvtneps_pbh((__m512)v));
#else
  const Ints words = rounded_bits(v) >> 16;
  Halves halves;
  for (int i = 0; i < kLanes; ++i) halves[i] = words[i];  // __builtin_convertvector, in compilers older than it
  store_as(to, halves);
#endif
}

// Two rows of values as bfloat16, one of each in a pair.
inline Ints pairs_of(Floats first, Floats second) {
  return ((rounded_bits(first) >> 16) & 0xffff) | (rounded_bits(second) & std::int32_t(0xffff0000));
}

// One word of `store`d values: a float, or two neighbouring bfloat16. A product takes one from `a` for all lanes.
inline Floats word(const float* from) { return all(*from); }
inline Ints word(const Bf16* from) { return all(load_as<std::int32_t>(from)); }

// sum + a * b: one product, or two for pairs of bfloat16.
inline Floats dot(Floats sum, Floats a, const float* b) { return sum + a * load(b); }
inline Floats dot(Floats sum, Ints a, const Bf16* b) {
  const Ints pairs = load_as<Ints>(b);
#ifdef CAIT_BF16_DOT
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)pairs);
#else
  const Ints upper = all(std::int32_t(0xffff0000));
  sum += (Floats)(a << 16) * (Floats)(pairs << 16);
  return sum + (Floats)(a & upper) * (Floats)(pairs & upper);
#endif
}

// e^x, relative error 1e-7; x at most 0, and below -87 it is 0 or next to it.
inline Floats exponential(Floats x) {
  const float rounder = 12582912.f;  // 1.5 * 2^23: adding it leaves an integer in the lower bits
  x = larger(x, all(-87.f));
  const Floats shifted = x * 1.44269504f + rounder;
  const Floats n = shifted - rounder;
  const Floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  Floats p = all(1.38368e-3f);
  for (const float c : {8.37482e-3f, 4.1668230e-2f, 1.66664200e-1f, 4.99999920e-1f, 1.00000004f, 1.f}) p = p * r + c;
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// x * Phi(x), the Gaussian error linear unit. Phi(x) - 1/2 is x times a polynomial of x^2 (fitted for the least largest
// error, 6e-8 and 7e-6), constant beyond 5.2 and 4.2.
template <int N>
inline Floats gelu_polynomial(Floats x, float limit, const float (&coefficients)[N]) {
  const Floats inner = smaller(larger(x, all(-limit)), all(limit));
  const Floats s = inner * inner * (2 / (limit * limit)) - 1.f;
  Floats p = all(coefficients[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) p = p * s + coefficients[i];
  return x * (inner * p + 0.5f);
}
inline Floats gelu(Floats x, float) {
  constexpr float kCoefficients[] = {-4.812777073e-04f, 1.268511725e-03f,  -1.221492310e-03f, 1.800120862e-03f,
                                     -4.789040124e-03f, 8.559969502e-03f,  -1.250512063e-02f, 1.795478613e-02f,
                                     -2.472362960e-02f, 3.198995944e-02f,  -3.992981957e-02f, 5.002452134e-02f,
                                     -6.774366747e-02f, 1.359499930e-01f};
  return gelu_polynomial(x, 5.2f, kCoefficients);
}
inline Floats gelu(Floats x, Bf16) {
  constexpr float kCoefficients[] = {2.196645618e-03f,  -5.817593751e-03f, 8.104612035e-03f,
                                     -1.367535942e-02f, 2.500496593e-02f,  -3.895563287e-02f,
                                     5.581444637e-02f,  -8.148203659e-02f, 1.678561458e-01f};
  return gelu_polynomial(x, 4.2f, kCoefficients);
}
