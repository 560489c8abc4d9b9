// The patch embedding.

// Patches that are cut out at a time, at most.
template <class T>
constexpr int kPatchRows = 4 * kTileRows<Row<T>>;

// What one thread works in.
template <class T>
struct PatchSpace {
  float* patch;  // [depth], of one
  Row<T>* rows;  // [kPatchRows, depth]
  float* room;   // for the product

  PatchSpace(std::size_t depth, Pieces* pieces) {
    patch = pieces->take<float>(depth);
    rows = pieces->take<Row<T>>(kPatchRows<T> * depth);
    room = pieces->take<float>(room_elements<Row<T>>(kPatchRows<T>));
  }
};

template <class T>
std::size_t patch_scratch(const PatchCall& call, int threads) {
  Pieces pieces{nullptr};
  for (int t = 0; t < threads; ++t) (void)PatchSpace<T>(padded(call.channels * call.patch * call.patch), &pieces);
  return pieces.used;
}

// One thread's share: a range of all images' rows.
template <class T>
void patches(const PatchCall& call, const Team& team) {
  const int p = call.patch, across = call.width / p, tokens = call.height / p * across;
  const int size = call.channels * p * p, depth = padded(size), panels = padded(call.dim) / kPanel;
  Pieces pieces{team.scratch};
  for (int t = 0; t < team.thread; ++t) (void)PatchSpace<T>(depth, &pieces);
  const PatchSpace<T> space(depth, &pieces);
  const TilesInUse<T> tiles_in_use;
  std::fill(space.patch + size, space.patch + depth, 0.f);
  const long parts = tiles_of<Row<T>>(static_cast<long>(call.images) * tokens);
  const long last = std::min(static_cast<long>(call.images) * tokens, parts * (team.thread + 1) / team.threads * kTileRows<Row<T>>);
  for (long begin = parts * team.thread / team.threads * kTileRows<Row<T>>; begin < last; begin += kPatchRows<T>) {
    const int rows = static_cast<int>(std::min<long>(kPatchRows<T>, last - begin));
    for (int r = 0; r < rows; ++r) {
      const long image = (begin + r) / tokens;
      const int token = (begin + r) % tokens;
      const float* corner = call.input + image * call.channels * call.height * call.width +
                            static_cast<long>(token / across) * p * call.width + token % across * p;
      for (int line = 0; line < call.channels * p; ++line) {
        const float* from = corner + (static_cast<long>(line / p) * call.height + line % p) * call.width;
        std::memcpy(space.patch + line * p, from, p * sizeof(float));
      }
      Row<T>* to = space.rows + static_cast<long>(r) * depth;
      for (int c = 0; c < depth; c += kLanes) store(to + c, load(space.patch + c));
    }
    const Factors<Row<T>, T> factors{space.rows, depth, static_cast<const T*>(call.panels),
                                     static_cast<long>(depth) * kPanel, depth, nullptr, space.room};
    product(factors, rows, panels, [&](int row, int high, int panel, const float* values) {
      const int columns = std::min(kPanel, call.dim - panel * kPanel);
      for (int r = 0; r < high; ++r) {
        const long at = begin + row + r;
        const float* position = call.positions + at % tokens * call.dim + panel * kPanel;
        float* to = call.output + at * call.dim + panel * kPanel;
        for (int c = 0; c < columns; ++c) to[c] = values[r * kTileColumns + c] + position[c];
      }
    });
  }
}
