#include "engine/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/math.h"
#include "engine/gpu.h"
#include "engine/model_ranks.h"
#include "engine/verify_sequence.h"
#include "sample/logprobs.h"
#include "weights/safetensors.h"

namespace fathom::engine {
namespace {

struct Golden {
  std::string name;
  std::vector<int32_t> prompt, greedy;
  std::vector<float> logits;  // [positions, V], of the prompt's last positions
  int64_t positions = 0;
};

// `count` values from `begin` on, copied: a file's bytes need not be aligned.
template <class T>
std::vector<T> copy(const weights::TensorView& tensor, int64_t begin, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  std::memcpy(values.data(), tensor.data + begin * static_cast<int64_t>(sizeof(T)),
              values.size() * sizeof(T));
  return values;
}

Error unfit(const std::string& file, const std::string& what) {
  return error(ErrorCode::kInvalidArgument, "{}: {}", file, what);
}

Result<std::vector<Golden>> read_goldens(const weights::SafetensorsFile& file, const std::string& path,
                                         int64_t vocab) {
  std::vector<Golden> cases;
  const auto get = [&](const std::string& name, const char* dtype,
                       size_t rank) -> const weights::TensorView* {
    for (const auto& tensor : file.tensors()) {
      if (tensor.name == name)
        return tensor.dtype_name == dtype && tensor.shape.size() == rank ? &tensor : nullptr;
    }
    return nullptr;
  };
  if (const auto* ids = get("input_ids", "I32", 2)) {
    const auto* logits = get("logits", "F32", 3);
    const auto* greedy = get("greedy", "I32", 2);
    if (logits == nullptr || greedy == nullptr)
      return unfit(path, "expected F32 logits [B, T, V] and I32 greedy [B, N]");
    const int64_t batch = ids->shape[0];
    const int64_t length = ids->shape[1];
    if (logits->shape[0] != batch || greedy->shape[0] != batch || logits->shape[1] > length || length < 1) {
      return unfit(path, "the shapes of input_ids, logits and greedy do not fit together");
    }
    if (logits->shape[2] != vocab) {
      return unfit(path, fmt::format("logits of {} tokens, the model has {}", logits->shape[2], vocab));
    }
    for (int64_t b = 0; b < batch; ++b) {
      Golden golden;
      golden.name = fmt::format("prompt {}", b);
      golden.prompt = copy<int32_t>(*ids, b * length, length);
      golden.greedy = copy<int32_t>(*greedy, b * greedy->shape[1], greedy->shape[1]);
      golden.positions = logits->shape[1];
      golden.logits = copy<float>(*logits, b * golden.positions * vocab, golden.positions * vocab);
      cases.push_back(std::move(golden));
    }
    return cases;
  }
  for (int i = 0;; ++i) {
    const auto* ids = get(fmt::format("{}.input_ids", i), "I32", 1);
    if (ids == nullptr) break;
    const auto* logits = get(fmt::format("{}.last_logits", i), "F32", 1);
    const auto* greedy = get(fmt::format("{}.greedy", i), "I32", 1);
    if (logits == nullptr || greedy == nullptr || logits->shape[0] != vocab || ids->shape[0] < 1) {
      return unfit(path, fmt::format("case {}: expected F32 last_logits [{}] and I32 greedy [N]", i, vocab));
    }
    cases.push_back({fmt::format("prompt {}", i), copy<int32_t>(*ids, 0, ids->shape[0]),
                     copy<int32_t>(*greedy, 0, greedy->shape[0]), copy<float>(*logits, 0, vocab), 1});
  }
  if (cases.empty()) return unfit(path, "no input_ids and no 0.input_ids: not a golden file");
  return cases;
}

double divergence(const float* golden, const float* got, int64_t vocab) {
  const double golden_sum = sample::log_sum_exp(golden, vocab);
  const double got_sum = sample::log_sum_exp(got, vocab);
  double kl = 0.0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double log_p = golden[i] - golden_sum;
    kl += std::exp(log_p) * (log_p - (got[i] - got_sum));
  }
  return std::max(kl, 0.0);
}

}  // namespace

double median(std::vector<double> values) {
  FATHOM_CHECK(!values.empty(), "the median of nothing");
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

namespace {

// On the CPU, on pages 0, 1, 2, ...
class CpuVerifyModel final : public VerifyModel {
 public:
  static Result<std::unique_ptr<VerifyModel>> make(const EngineOptions& options, int64_t places) {
    std::unique_ptr<CpuVerifyModel> made(new CpuVerifyModel(options));
    FATHOM_ASSIGN(auto groups, ModelRanks::build(options, made->pool_));
    made->model_ = std::move(groups.front());
    const int64_t pages = ceil_div<int64_t>(places, options.page_size);
    FATHOM_TRY(made->model_->allocate_cache(pages, options.page_size));
    made->pages_.resize(static_cast<size_t>(pages));
    std::iota(made->pages_.begin(), made->pages_.end(), 0);
    return std::unique_ptr<VerifyModel>(std::move(made));
  }

  void reset() override { length_ = 0; }

  Result<device::Tensor> forward(const std::vector<int32_t>& tokens, int64_t wanted, bool decode) override {
    const auto count = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    std::vector<int64_t> places(tokens.size());
    for (int32_t i = 0; i < count; ++i) {
      positions[static_cast<size_t>(i)] = length_ + i;
      places[static_cast<size_t>(i)] = length_ + i;  // pages in order: the place is the position
    }
    std::vector<int32_t> rows(static_cast<size_t>(wanted));
    std::iota(rows.begin(), rows.end(), count - static_cast<int32_t>(wanted));
    const ops::AttentionRow row{0, count, length_, pages_.data()};
    model::ForwardBatch batch;
    batch.tokens = count;
    batch.token_ids = tokens.data();
    batch.positions = positions.data();
    batch.places = places.data();
    (decode ? batch.decode_rows : batch.extend_rows) = {&row, 1};
    batch.logit_rows = rows;
    model::ForwardOutput output;
    model_->forward(launch_, batch, &output);
    FATHOM_TRY(model_->state());
    length_ += count;
    return output.logits;
  }

 private:
  explicit CpuVerifyModel(const EngineOptions& options)
      : pool_(thread_shares(options.threads, options.split.world()).front(),
              cpu_share(available_cpus(), thread_shares(options.threads, options.split.world()), 0)),
        launch_(pool_) {}

  ThreadPool pool_;
  device::Launch launch_;
  std::unique_ptr<ModelRanks> model_;
  std::vector<int32_t> pages_;
  int32_t length_ = 0;
};

Result<VerifyCase> compare(const Golden& golden, VerifyModel& model, int64_t vocab) {
  model.reset();
  VerifyCase result;
  result.name = golden.name;
  const auto length = static_cast<int64_t>(golden.prompt.size());
  FATHOM_ASSIGN(const device::Tensor logits, model.forward(golden.prompt, golden.positions, false));
  for (int64_t p = 0; p < golden.positions; ++p) {
    const float* expected = golden.logits.data() + p * vocab;
    const float* got = logits.row<float>(p);
    for (int64_t v = 0; v < vocab; ++v) {
      const double difference = std::abs(static_cast<double>(got[v]) - expected[v]);
      if (!(difference <= result.worst_error)) {  // a NaN is the worst
        result.worst_error = std::isnan(difference) ? INFINITY : difference;
        result.worst_position = length - golden.positions + p;
        result.worst_token = v;
      }
    }
    result.kl.push_back(divergence(expected, got, vocab));
  }
  result.compared = golden.positions * vocab;
  result.worst_kl = *std::max_element(result.kl.begin(), result.kl.end());
  result.median_kl = median(result.kl);

  const float* last = logits.row<float>(golden.positions - 1);
  result.greedy_tokens = static_cast<int64_t>(golden.greedy.size());
  for (size_t i = 0; i < golden.greedy.size(); ++i) {
    const auto token = static_cast<int32_t>(std::max_element(last, last + vocab) - last);
    if (token != golden.greedy[i]) {
      result.first_difference = static_cast<int64_t>(i);
      result.expected = golden.greedy[i];
      result.got = token;
      break;
    }
    if (i + 1 == golden.greedy.size()) break;
    FATHOM_ASSIGN(const device::Tensor next, model.forward({token}, 1, true));
    last = next.row<float>(0);
  }
  return result;
}

}  // namespace

Result<std::vector<VerifyCase>> verify(const Settings& settings, const std::string& golden_file) {
  ModelFacts facts;
  FATHOM_ASSIGN(EngineOptions options, resolve(settings, &facts));
  FATHOM_ASSIGN(const auto file, weights::SafetensorsFile::open(golden_file));
  auto read = read_goldens(file, golden_file, facts.vocab_size);
  FATHOM_TRY(file.intact());
  FATHOM_ASSIGN(const auto goldens, std::move(read));
  int64_t longest = 0;
  int64_t places = 0;
  for (const auto& golden : goldens) {
    const auto length = static_cast<int64_t>(golden.prompt.size());
    longest = std::max(longest, length);
    places = std::max(places, length + static_cast<int64_t>(golden.greedy.size()));
    for (const int32_t token : golden.prompt) {
      if (token < 0 || token >= facts.vocab_size) {
        return unfit(golden_file, fmt::format("token {} is outside the model's {}", token, facts.vocab_size));
      }
    }
  }
  if (places > facts.context_length) {
    return unfit(golden_file, fmt::format("{} tokens, the context holds {}", places, facts.context_length));
  }

  std::optional<weights::Checkpoint> checkpoint;
  if (!settings.dummy) {
    FATHOM_ASSIGN(checkpoint, weights::Checkpoint::open(settings.model_path));
    options.load.checkpoint = &*checkpoint;
  }
  options.load.max_tokens = longest;
  options.load.max_logit_rows = longest;
  FATHOM_ASSIGN(const auto model, options.cuda ? make_gpu_verify_model(options, places)
                                               : CpuVerifyModel::make(options, places));
  std::vector<VerifyCase> results;
  for (const auto& golden : goldens) {
    FATHOM_ASSIGN(auto result, compare(golden, *model, facts.vocab_size));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace fathom::engine
