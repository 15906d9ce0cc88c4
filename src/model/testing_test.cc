#include "model/testing.h"

#include <algorithm>
#include <numeric>
#include <thread>

#include "base/math.h"
#include "dist/thread_group.h"

namespace fathom::model::testing {

Loaded load(const std::string& model_dir, const Options& options) {
  Loaded loaded;
  loaded.config = load_config(model_dir).value();
  const auto checkpoint = weights::Checkpoint::open(model_dir);
  loaded.pool = std::make_unique<ThreadPool>(options.threads);
  loaded.launch = std::make_unique<device::Launch>(*loaded.pool);
  LoadOptions load;
  load.checkpoint = &checkpoint.value();
  load.target.isa = options.isa;
  load.compute = options.compute;
  load.kv_dtype = options.kv_dtype;
  load.mla = options.mla;
  load.max_tokens = options.max_tokens;
  load.max_logit_rows = options.max_tokens;
  load.group = options.group;
  if (options.group != nullptr) load.split.tp = options.group->size();
  loaded.model = std::move(Model::build(loaded.config, load, *loaded.pool)).value();
  return loaded;
}

void run_ranks(int ranks, const Options& options, const std::function<void(const Options&, int)>& body) {
  auto groups = dist::make_thread_groups(ranks, std::chrono::seconds(60));
  std::vector<std::thread> threads;
  for (auto& group : groups) {
    threads.emplace_back([&, mine = std::move(group)] {
      Options own = options;
      own.threads = 1;
      own.group = mine.get();
      body(own, mine->rank());
    });
  }
  for (auto& thread : threads) thread.join();
}

namespace {

template <class T>
Matrix<T> read(const weights::SafetensorsFile& file, const std::string& name) {
  for (const auto& tensor : file.tensors()) {
    if (tensor.name != name) continue;
    Matrix<T> matrix;
    matrix.columns = tensor.shape.back();
    matrix.rows =
        std::accumulate(tensor.shape.begin(), tensor.shape.end() - 1, int64_t{1}, std::multiplies<>());
    for (int64_t i = 0; i < matrix.rows * matrix.columns; ++i) {
      matrix.values.push_back(static_cast<T>(device::load_as_f32(tensor.data, *tensor.dtype, i)));
    }
    return matrix;
  }
  FATHOM_CHECK(false, "{} has no tensor {}", file.path(), name);
}

}  // namespace

Matrix<float> read_floats(const weights::SafetensorsFile& file, const std::string& name) {
  return read<float>(file, name);
}
Matrix<int32_t> read_ints(const weights::SafetensorsFile& file, const std::string& name) {
  return read<int32_t>(file, name);
}

Pages::Pages(const Model& model, int64_t num_pages, int64_t page_size)
    : pool_(KvPool::allocate(model.kv_layout(), num_pages, page_size).value()) {
  free_.resize(static_cast<size_t>(num_pages));
  std::iota(free_.begin(), free_.end(), 0);
  std::shuffle(free_.begin(), free_.end(), std::mt19937(7));
}

void Pages::cover(std::vector<int32_t>& block_table, int64_t places) {
  while (static_cast<int64_t>(block_table.size()) < ceil_div(places, pool_.page_size())) {
    FATHOM_CHECK(!free_.empty(), "the test's pool is too small");
    block_table.push_back(free_.back());
    free_.pop_back();
  }
}

std::vector<float> run(Loaded& loaded, Pages& pages, const std::vector<Piece>& pieces) {
  std::vector<int32_t> ids, positions;
  std::vector<int64_t> places;
  std::vector<ops::AttentionRow> extend_rows, decode_rows;
  std::vector<int32_t> first_of(pieces.size());
  for (const bool decode : {false, true}) {
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      if (piece.decode != decode) continue;
      const auto count = static_cast<int32_t>(piece.tokens.size());
      pages.cover(*piece.block_table, piece.start + count);
      const auto first = static_cast<int32_t>(ids.size());
      first_of[i] = first;
      const auto start = static_cast<int32_t>(piece.start);
      ops::AttentionRow row{first, count, start, piece.block_table->data()};
      row.goes_on = piece.goes_on;
      (decode ? decode_rows : extend_rows).push_back(row);
      for (int32_t j = 0; j < count; ++j) {
        const int64_t place = piece.start + j;
        const int64_t size = pages.pool().page_size();
        ids.push_back(piece.tokens[static_cast<size_t>(j)]);
        positions.push_back(start + j);
        places.push_back((*piece.block_table)[static_cast<size_t>(place / size)] * size + place % size);
      }
    }
  }
  std::vector<int32_t> rows;
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (size_t j = 0; j < pieces[i].tokens.size(); ++j) {
      rows.push_back(first_of[i] + static_cast<int32_t>(j));
    }
  }
  ForwardBatch batch;
  batch.tokens = static_cast<int64_t>(ids.size());
  batch.token_ids = ids.data();
  batch.positions = positions.data();
  batch.places = places.data();
  batch.extend_rows = extend_rows;
  batch.decode_rows = decode_rows;
  batch.logit_rows = rows;
  batch.cache = &pages.pool();
  ForwardOutput output;
  loaded.model->forward(*loaded.launch, batch, &output);
  const float* logits = output.logits.f32();
  return {logits, logits + output.logits.numel()};
}

}  // namespace fathom::model::testing
