// LayerScale self-attention blocks (paper section 2), for one instruction set.

// Where one block's weights lie; see `Shape`.
template <class T>
struct Weights {
  const T *qkv, *proj, *fc1, *fc2;
  const float *qkv_bias, *proj_bias, *fc1_bias, *fc2_bias, *mix_logits, *mix_weights, *mix_bias;

  Weights(const Shape& s, const T* panels, const float* vectors) {
    const std::size_t attention = static_cast<std::size_t>(s.width()) * s.attention_width();
    qkv = panels;
    proj = qkv + 3 * attention;
    fc1 = proj + attention;
    fc2 = fc1 + static_cast<std::size_t>(s.width()) * s.hidden_width();
    qkv_bias = vectors;
    proj_bias = qkv_bias + 3 * s.attention_width();
    fc1_bias = proj_bias + s.width();
    fc2_bias = fc1_bias + s.hidden_width();
    mix_logits = fc2_bias + s.width();
    mix_weights = mix_logits + s.heads * s.heads;
    mix_bias = mix_weights + s.heads * s.heads;
  }
};

// Keys and values of one image, as panels: keys [heads][keys / 16][head_width][16], values [heads][head_width / 16][keys][16].
template <class T>
struct KeysAndValues {
  T *keys, *values;
};

// The number of keys, with what is added to it: of panels, and of the depth of the product with the values.
template <class T>
inline int padded_keys(const Shape& s) {
  constexpr int kMultiple = std::max(kPanel, kDepthStep<T>);
  return (s.tokens + kMultiple - 1) / kMultiple * kMultiple;
}

// What one thread works in.
template <class T>
struct Workspace {
  KeysAndValues<T> own;
  Row<T>* normalised;  // [tokens, width]
  T* queries;          // [tokens, attention_width]
  Row<T>* attended;    // the same, the output of attention; where it can, it takes the queries' place, row by row
  Row<T>* hidden;      // [rows, columns] of HiddenPart
  float* logits;       // [heads][kTileRows][keys]
  T* mixed;            // the same
  float* room;         // for all products with weights
};

// The part of the MLP's hidden layer that is computed and used at a time: small enough for the second cache, and of many
// rows, so that weights are read seldom.
template <class T>
struct HiddenPart {
  int rows, columns;

  explicit HiddenPart(const Shape& s) {
    constexpr std::size_t kBytes = 384 * 1024, kMostRows = 256;
    const long tiles = tiles_of<Row<T>>(s.tokens), parts = (tiles * kTileRows<Row<T>> + kMostRows - 1) / kMostRows;
    rows = (tiles + parts - 1) / parts * kTileRows<Row<T>>;
    const int most = static_cast<int>(kBytes / (rows * sizeof(Row<T>))) / kTileColumns * kTileColumns;
    columns = std::min(std::max(most, kTileColumns), s.hidden_width());
  }
};

template <class T>
KeysAndValues<T> take_keys_and_values(const Shape& s, Pieces* pieces) {
  const std::size_t size = static_cast<std::size_t>(padded_keys<T>(s)) * s.attention_width();
  T* keys = pieces->take<T>(size);
  return {keys, pieces->take<T>(size)};
}

// Rows of a panel, in pairs, the second of which may be missing.
template <class P>
inline void store_values(P* panel, int key, int rows, const float* from) {
  for (int r = 0; r < rows; r += 2) {
    for (int c = 0; c < kPanel; c += kLanes) {
      const float* at = from + r * kTileColumns + c;
      store_rows(panel + (sizeof(P) == sizeof(Bf16) ? 2 * c : c), key + r, load(at),
                 r + 1 < rows ? load(at + kTileColumns) : Floats{});
    }
  }
}

// Layer norm and qkv of rows [begin, end) of an image.
template <class T>
void queries_keys_values(const Shape& s, const Weights<T>& w, const float* x, int begin, int end,
                         const Workspace<T>& space, const KeysAndValues<T>& to) {
  const int width = s.width(), attention = s.attention_width(), head_width = s.head_width();
  const int kind_panels = attention / kPanel, head_panels = head_width / kPanel, keys_there = padded_keys<T>(s);
  for (int row = begin; row < end; ++row) {
    normalise(x + static_cast<long>(row) * width, s.dim, width, space.normalised + static_cast<long>(row) * width);
  }
  const Factors<Row<T>, T> factors{space.normalised + static_cast<long>(begin) * width, width, w.qkv,
                                   long(width) * kPanel, width, w.qkv_bias, space.room};
  product(factors, end - begin, 3 * kind_panels, [&](int row, int rows, int panel, const float* values) {
    const int token = begin + row, part = panel % kind_panels;
    if (panel < kind_panels) {
      CopyTo<T>{space.queries, attention}(token, rows, panel, values);
    } else if (panel < 2 * kind_panels) {
      const int head = part / head_panels, column = part % head_panels * kPanel;
      T* keys = to.keys + static_cast<long>(head) * keys_there * head_width + column * kPanel;
      for (int r = 0; r < rows; ++r) {
        const int key = token + r;
        store_column(keys + static_cast<long>(key / kPanel) * kPanel * head_width, key % kPanel,
                     values + r * kTileColumns);
      }
    } else {
      store_values(to.values + static_cast<long>(part) * keys_there * kPanel, token, rows, values);
    }
  });
}

// Talking heads on one query: [heads] rows of logits, `stride` apart -> rows for the product with the values.
// H is the number of heads, or 0 where it is known only at run time.
template <int H, class T>
void mix_heads(const Shape& s, const Weights<T>& w, float* logits, long stride, T* mixed) {
  constexpr int kMost = H ? H : kMostHeads;
  const int heads = H ? H : s.heads, keys = padded_keys<T>(s);
  Floats values[kMost], most[kMost];
  float weights[kMost * kMost];
  Ints lane{};
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int h = 0; h < heads; ++h) most[h] = all(-3e38f);
  for (int key = 0; key < keys; key += kLanes) {
    for (int h = 0; h < heads; ++h) values[h] = load(logits + h * stride + key);
    for (int h = 0; h < heads; ++h) {
      Floats total = values[0] * w.mix_logits[h];
      for (int g = 1; g < heads; ++g) total += values[g] * w.mix_logits[g * heads + h];
      if (key + kLanes > s.tokens) total = lane + key < s.tokens ? total : all(-3e38f);
      most[h] = larger(most[h], total);
      store(logits + h * stride + key, total);
    }
  }
  for (int h = 0; h < heads; ++h) {
    const float shift = largest(most[h]);
    Floats total{};
    for (int key = 0; key < keys; key += kLanes) {
      const Floats e = exponential(load(logits + h * stride + key) - shift);
      total += e;
      store(logits + h * stride + key, e);
    }
    // exponential() gives about e^-87 for the padding: nothing beside the largest one, which is 1.
    const float share = 1.f / sum(total);
    for (int to = 0; to < heads; ++to) weights[h * heads + to] = w.mix_weights[h * heads + to] * share;
  }
  for (int key = 0; key < keys; key += kLanes) {
    for (int h = 0; h < heads; ++h) values[h] = load(logits + h * stride + key);
    for (int h = 0; h < heads; ++h) {
      Floats total = all(w.mix_bias[h]);
      for (int g = 0; g < heads; ++g) total += values[g] * weights[g * heads + h];
      store(mixed + h * stride + key, total);
    }
  }
}

// Attention of the queries [begin, end) to all keys; the result takes the queries' place.
template <class T>
void attend(const Shape& s, const Weights<T>& w, int begin, int end, const Workspace<T>& space,
            const KeysAndValues<T>& image) {
  const int attention = s.attention_width(), head_width = s.head_width(), keys = padded_keys<T>(s);
  const int depth = (s.tokens + kDepthStep<T> - 1) / kDepthStep<T> * kDepthStep<T>;
  const long block = static_cast<long>(kTileRows<T>) * keys;
  void (*mix)(const Shape&, const Weights<T>&, float*, long, T*) = mix_heads<0, T>;
  if (s.heads == 4) mix = mix_heads<4, T>;
  if (s.heads == 6) mix = mix_heads<6, T>;
  if (s.heads == 8) mix = mix_heads<8, T>;
  if (s.heads == 16) mix = mix_heads<16, T>;
  for (int row = begin; row < end; row += kTileRows<T>) {
    const int rows = std::min(kTileRows<T>, end - row);
    const T* queries = space.queries + static_cast<long>(row) * attention;
    Row<T>* attended = space.attended + static_cast<long>(row) * attention;
    use_depth<T>(head_width);
    for (int h = 0; h < s.heads; ++h) {
      const Factors<T, T> factors{queries + h * head_width, attention, image.keys + static_cast<long>(h) * keys * head_width,
                               long(head_width) * kPanel, head_width, nullptr};
      for (int panel = 0; panel < keys / kPanel; panel += kTilePanels) {
        any_tile(factors, 0, rows, panel, std::min(kTilePanels, keys / kPanel - panel),
                 space.logits + h * block + panel * kPanel, keys);
      }
    }
    for (int r = 0; r < rows; ++r) mix(s, w, space.logits + r * keys, block, space.mixed + r * keys);
    for (int h = 0; h < s.heads; ++h) {
      const Factors<T, T> factors{space.mixed + h * block, keys, image.values + static_cast<long>(h) * keys * head_width,
                               long(keys) * kPanel, depth, nullptr};
      product(factors, rows, head_width / kPanel, CopyTo<Row<T>>{attended + h * head_width, attention});
    }
  }
}

// What follows attention for rows [begin, end): its projection, and the MLP.
template <class T>
void project_and_mlp(const Shape& s, const Weights<T>& w, float* x, int begin, int end, const Workspace<T>& space) {
  const int width = s.width(), attention = s.attention_width(), hidden = s.hidden_width();
  float* rows_of_x = x + static_cast<long>(begin) * width;
  typedef Factors<Row<T>, T> WithWeights;
  const WithWeights projection{space.attended + static_cast<long>(begin) * attention, attention, w.proj,
                               long(attention) * kPanel, attention, w.proj_bias, space.room};
  product(projection, end - begin, width / kPanel, AddTo{rows_of_x, width});
  const HiddenPart<T> part(s);
  for (int row = begin; row < end; row += part.rows) {
    const int rows = std::min(part.rows, end - row);
    float* x_here = x + static_cast<long>(row) * width;
    for (long at = 0; at < static_cast<long>(rows) * width; at += width) {
      normalise(x_here + at, s.dim, width, space.normalised + at);
    }
    for (int column = 0; column < hidden; column += part.columns) {
      const int columns = std::min(part.columns, hidden - column);
      const WithWeights first{space.normalised, width, w.fc1 + static_cast<long>(column) * width, long(width) * kPanel,
                              width, w.fc1_bias + column, space.room};
      product(first, rows, columns / kPanel, GeluTo<Row<T>>{space.hidden, columns});
      const WithWeights second{space.hidden, columns, w.fc2 + static_cast<long>(column) * kPanel, long(hidden) * kPanel,
                               columns, column ? nullptr : w.fc2_bias, space.room};
      product(second, rows, width / kPanel, AddTo{x_here, width});
    }
  }
}

// The residuals of all images, a workspace for each thread, and twice the keys and values of an image that all threads
// share: the next ones are written while slower threads still read the last.
template <class T>
std::size_t lay_out(const Shape& s, int images, int threads, int thread, char* scratch, float** residual,
                    Workspace<T>* space, KeysAndValues<T>* shared) {
  Pieces pieces{scratch};
  *residual = pieces.take<float>(static_cast<std::size_t>(images) * s.tokens * s.width());
  const std::size_t rows = tiles_of<Row<T>>(s.tokens) * kTileRows<Row<T>>;
  const std::size_t block = static_cast<std::size_t>(s.heads) * kTileRows<T> * padded_keys<T>(s);
  const HiddenPart<T> part(s);
  for (int t = 0; t < threads; ++t) {
    Workspace<T> mine;
    mine.own = take_keys_and_values<T>(s, &pieces);
    mine.normalised = pieces.take<Row<T>>(rows * s.width());
    mine.queries = pieces.take<T>(rows * s.attention_width());
    if constexpr (std::is_same<Row<T>, T>::value) {
      mine.attended = mine.queries;
    } else {
      mine.attended = pieces.take<Row<T>>(rows * s.attention_width());
    }
    mine.hidden = pieces.take<Row<T>>(static_cast<std::size_t>(part.rows) * part.columns);
    mine.logits = pieces.take<float>(block);
    mine.mixed = pieces.take<T>(block);
    mine.room = pieces.take<float>(room_elements<Row<T>>(rows));
    if (t == thread) *space = mine;
  }
  for (int i = 0; i < 2; ++i) shared[i] = take_keys_and_values<T>(s, &pieces);
  return pieces.used;
}

template <class T>
std::size_t block_scratch(const BlockCall& call, int threads) {
  float* residual;
  Workspace<T> space;
  KeysAndValues<T> shared[2];
  return lay_out<T>(call.shape, call.images, threads, 0, nullptr, &residual, &space, shared);
}

// One thread's share. Each thread has as many whole images as the others, which need no waiting; the images that are
// left over (the only one, at batch size 1) are cut into rows, and all wait once a block until its keys and values are
// there.
template <class T>
void blocks(const BlockCall& call, const Team& team) {
  const TilesInUse<T> tiles_in_use;
  const Shape& s = call.shape;
  const int left = call.images % team.threads, whole = call.images / team.threads;
  float* residual;
  Workspace<T> space;
  KeysAndValues<T> shared[2];
  lay_out<T>(s, call.images, team.threads, team.thread, team.scratch, &residual, &space, shared);
  const long image_in = static_cast<long>(s.tokens) * s.dim, image = static_cast<long>(s.tokens) * s.width();
  const int tiles = tiles_of<Row<T>>(s.tokens), first_left = whole * team.threads;
  const int begin = std::min(s.tokens, tiles * team.thread / team.threads * kTileRows<Row<T>>);
  const int end = std::min(s.tokens, tiles * (team.thread + 1) / team.threads * kTileRows<Row<T>>);

  // Keys and values beyond the last token are never written, and must not be NaN.
  const std::size_t size = static_cast<std::size_t>(padded_keys<T>(s)) * s.attention_width();
  std::fill_n(space.own.keys, size, T{});
  std::fill_n(space.own.values, size, T{});
  if (team.thread == 0) {
    for (const auto& piece : shared) {
      std::fill_n(piece.keys, size, T{});
      std::fill_n(piece.values, size, T{});
    }
  }
  const auto residual_of = [&](int i) { return residual + i * image; };
  // All rows of the whole images, and some of those that are left over.
  const auto each_share = [&](auto use) {
    for (int i = team.thread * whole; i < (team.thread + 1) * whole; ++i) use(i, 0, s.tokens);
    for (int i = first_left; i < call.images; ++i) use(i, begin, end);
  };
  each_share([&](int i, int from, int to) {
    copy_rows(call.input + i * image_in + static_cast<long>(from) * s.dim, s.dim,
              residual_of(i) + static_cast<long>(from) * s.width(), s.width(), to - from);
  });
  if (left) team.barrier->wait();

  int step = 0;
  for (int depth = 0; depth < s.depth; ++depth) {
    const Weights<T> w(s, static_cast<const T*>(call.panels) + depth * s.panel_elements(),
                       call.vectors + depth * s.vector_elements());
    for (int i = team.thread * whole; i < (team.thread + 1) * whole; ++i) {
      queries_keys_values(s, w, residual_of(i), 0, s.tokens, space, space.own);
      attend(s, w, 0, s.tokens, space, space.own);
      project_and_mlp(s, w, residual_of(i), 0, s.tokens, space);
    }
    for (int i = first_left; i < call.images; ++i) {
      const KeysAndValues<T>& turn = shared[step++ % 2];
      queries_keys_values(s, w, residual_of(i), begin, end, space, turn);
      team.barrier->wait();
      attend(s, w, begin, end, space, turn);
      project_and_mlp(s, w, residual_of(i), begin, end, space);
    }
  }
  each_share([&](int i, int from, int to) {
    copy_rows(residual_of(i) + static_cast<long>(from) * s.width(), s.width(),
              call.output + i * image_in + static_cast<long>(from) * s.dim, s.dim, to - from);
  });
}
