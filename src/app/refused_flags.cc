#include "app/refused_flags.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace fathom::app {
namespace {

struct Refusal {
  std::string_view flag;
  std::string_view reason;
};

constexpr std::string_view kGathered =
    "every rank sees the tokens of all and answers for its experts (--ep-size); leave it out";
constexpr std::string_view kFromCheckpoint = "the format is read from the checkpoint; leave it out";

constexpr std::array kRefusals = {
    Refusal{"--trust-remote-code", "Fathom never runs code of a checkpoint; leave it out"},
    Refusal{"--enable-deepep-moe", kGathered},
    Refusal{"--quantization", kFromCheckpoint},
    Refusal{"--speculative-attention-mode", "verified tokens attend as output tokens do; leave it out"},
    Refusal{"--grammar-backend", "there is one grammar engine; leave it out"},
    Refusal{"--enable-strict-thinking", "max_thinking_tokens needs no flag; leave it out"},
    Refusal{"--enable-torch-compile",
            "there is no PyTorch in Fathom: kernels are compiled ahead; leave it out"},
    Refusal{"--torch-compile-max-bs",
            "there is no PyTorch in Fathom: kernels are compiled ahead; leave it out"},
    Refusal{"--enable-flashinfer-mla", "attention kernels are chosen by the processor; leave it out"},
    Refusal{"--attention-backend",
            "attention kernels are chosen by the processor; see --cpu-isa to force a level"},
    Refusal{"--prefill-attention-backend", "attention kernels are chosen by the processor; see --cpu-isa"},
    Refusal{"--decode-attention-backend", "attention kernels are chosen by the processor; see --cpu-isa"},
    Refusal{"--sampling-backend", "there is one sampler; leave it out"},
    Refusal{"--enable-mixed-chunk", "mixed batches are the default; --disable-mixed-chunk turns them off"},
    Refusal{"--enable-lora", "LoRA adapters are not supported"},
    Refusal{"--is-embedding", "Fathom serves generative models only"},
    Refusal{"--max-prefill-tokens", "use --chunked-prefill-size, which bounds the tokens of a step"},
};

// Levenshtein distance.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> refusal_of(std::string_view flag) {
  const auto* found =
      std::find_if(kRefusals.begin(), kRefusals.end(), [&](const Refusal& r) { return r.flag == flag; });
  if (found == kRefusals.end()) return std::nullopt;
  return std::string(found->reason);
}

std::optional<std::string> nearest_flag(std::string_view flag, const std::vector<std::string>& known) {
  size_t best = flag.size() / 3 + 1;
  std::optional<std::string> nearest;
  for (const auto& name : known) {
    const size_t distance = edits(flag, name);
    if (distance <= best && (!nearest || distance < best)) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

}  // namespace fathom::app
