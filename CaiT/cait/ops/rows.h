// Rows of activations: layer norm, and what is done with the panels that a product gives.

// Hands out pieces of the scratch memory; with a null pointer it only counts.
struct Pieces {
  char* at;
  std::size_t used = 0;

  template <class P>
  P* take(std::size_t count) {
    P* piece = reinterpret_cast<P*>(reinterpret_cast<std::uintptr_t>(at) + used);
    used += (count * sizeof(P) + 63) / 64 * 64;
    return piece;
  }
};

// Writes one row of a layer norm without its weight and bias, which the next matrix has taken in.
template <class T>
inline void normalise(const float* x, int dim, int width, T* to) {
  Floats total{};
  for (int c = 0; c < width; c += kLanes) total += load(x + c);
  const float mean = sum(total) / dim;
  Floats squares{};
  int c = 0;
  for (; c + kLanes <= dim; c += kLanes) {
    const Floats centred = load(x + c) - mean;
    squares += centred * centred;
  }
  float variance = sum(squares);
  for (; c < dim; ++c) variance += (x[c] - mean) * (x[c] - mean);  // without the padding
  const float scale = 1.f / std::sqrt(variance / dim + 1e-6f);
  for (c = 0; c < width; c += kLanes) store(to + c, (load(x + c) - mean) * scale);
}

// Calls `use(place, values)` for each vector of a panel of a tile, with its place in rows that are `width` apart.
template <class P, class Use>
inline void each_vector(P* to, long width, int row, int rows, int panel, const float* values, Use use) {
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < kPanel; c += kLanes)
      use(to + (row + r) * width + panel * kPanel + c, load(values + r * kTileColumns + c));
}

// Adds what a product gives to rows of the residual.
struct AddTo {
  float* x;
  long width;

  void operator()(int row, int rows, int panel, const float* values) const {
    each_vector(x, width, row, rows, panel, values, [](float* at, Floats v) { store(at, load(at) + v); });
  }
};

// Writes what a product gives, as values of another precision.
template <class T>
struct CopyTo {
  T* to;
  long width;

  void operator()(int row, int rows, int panel, const float* values) const {
    each_vector(to, width, row, rows, panel, values, [](T* at, Floats v) { store(at, v); });
  }
};

// The same, after the activation.
template <class T>
struct GeluTo {
  T* to;
  long width;

  void operator()(int row, int rows, int panel, const float* values) const {
    each_vector(to, width, row, rows, panel, values, [](T* at, Floats v) { store(at, gelu(v, T())); });
  }
};

// Rows of one width as rows of another: cut, or continued with zeros.
inline void copy_rows(const float* from, int from_width, float* to, int to_width, long rows) {
  const int count = std::min(from_width, to_width);
  for (long r = 0; r < rows; ++r) {
    std::memcpy(to + r * to_width, from + r * from_width, count * sizeof(float));
    std::fill(to + r * to_width + count, to + (r + 1) * to_width, 0.f);
  }
}
