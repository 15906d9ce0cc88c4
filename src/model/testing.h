// For the model's tests (testing_test.cc, so that it is built into them only): golden files, and sequences
// that run through a model alone or together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "model/model.h"
#include "weights/safetensors.h"

namespace fathom::model::testing {

// A checkpoint of the repository and a model built from it.
struct Loaded {
  ModelConfig config;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<device::Launch> launch;
  std::unique_ptr<Model> model;
};

struct Options {
  ops::Compute compute = ops::Compute::kF32;
  device::DType kv_dtype = device::DType::kF32;
  bool mla = true;
  device::Isa isa = device::detect_isa();
  int threads = 2;
  int64_t max_tokens = 640;
  dist::Group* group = nullptr;  // of a rank
};
Loaded load(const std::string& model_dir, const Options& options);
// body(options of a rank, its number) on a thread for each rank of a group, one compute thread each.
void run_ranks(int ranks, const Options& options, const std::function<void(const Options&, int)>& body);

// A tensor of a golden file, [rows, columns] (the last dimension is columns).
template <class T>
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<T> values;
  const T* row(int64_t i) const { return values.data() + i * columns; }
};
Matrix<float> read_floats(const weights::SafetensorsFile& file, const std::string& name);
Matrix<int32_t> read_ints(const weights::SafetensorsFile& file, const std::string& name);

// Pages of one pool, handed out in a scrambled order so that no test leans on their order.
class Pages {
 public:
  Pages(const Model& model, int64_t num_pages, int64_t page_size);
  // Block tables cover `places` afterwards.
  void cover(std::vector<int32_t>& block_table, int64_t places);
  const KvPool& pool() const { return pool_; }

 private:
  KvPool pool_;
  std::vector<int32_t> free_;
};

// One sequence's part in a forward.
struct Piece {
  std::vector<int32_t>* block_table;
  std::vector<int32_t> tokens;
  int64_t start = 0;
  bool decode = false;
  bool goes_on = false;  // of a prompt
};
// Runs the pieces in one forward; the logits of every token, piece after piece, in the order given.
std::vector<float> run(Loaded& loaded, Pages& pages, const std::vector<Piece>& pieces);

}  // namespace fathom::model::testing
