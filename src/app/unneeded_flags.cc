#include "app/unneeded_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace fathom::app {
namespace {

struct Unneeded {
  std::string_view flag;
  // None: it has no value. Otherwise the values that ask for what is so, "lru|fifo", or * for all.
  std::string_view values;
  std::string_view reason;
};

constexpr std::string_view kNoTorch = "there is no PyTorch in Fathom, and kernels are compiled ahead";
constexpr std::string_view kNoWarmUp = "nothing has to be warmed up";

constexpr std::array kUnneeded = {
    Unneeded{"--trust-remote-code", "", "Fathom never runs code of a checkpoint"},
    Unneeded{"--model-loader-extra-config", "*", "weights are read in parallel"},
    Unneeded{"--enable-torch-compile", "", kNoTorch},
    Unneeded{"--torch-compile-max-bs", "*", kNoTorch},
    Unneeded{"--max-torch-compile-bs", "*", kNoTorch},
    Unneeded{"--sampling-backend", "*", "there is one sampler"},
    Unneeded{"--grammar-backend", "auto|xgrammar|outlines|llguidance", "there is one grammar engine"},
    Unneeded{"--disable-shared-experts-fusion", "", "shared experts run beside the routed ones"},
    Unneeded{"--enable-fp32-lm-head", "", "logits are summed in float32"},
    Unneeded{"--enable-mixed-chunk", "",
             "mixed batches are the default; --disable-mixed-chunk turns them off"},
    Unneeded{"--radix-eviction-policy", "lru", "the prefix used longest ago is evicted first"},
    Unneeded{"--sleep-on-idle", "", "an idle server sleeps"},
    Unneeded{"--warmups", "*", kNoWarmUp},
    Unneeded{"--skip-server-warmup", "", kNoWarmUp},
    Unneeded{"--enable-p2p-check", "", "the driver is asked at every start which GPUs reach each other"},
    Unneeded{"--enable-dp-lm-head", "", "with --enable-dp-attention every group has a head of its own"},
    Unneeded{"--stream-interval", "1", "tokens are sent as they come"},
    Unneeded{"--enable-cache-report", "", "usage says in every answer how many tokens were cached"},
    Unneeded{"--enable-strict-thinking", "", "max_thinking_tokens needs no flag"},
    Unneeded{"--decode-log-interval", "*", "steps are not logged; /metrics tells of them at any time"},
};

bool stands_in(std::string_view value, std::string_view values) {
  if (values == "*") return true;
  while (!values.empty()) {
    const size_t end = std::min(values.find('|'), values.size());
    if (values.substr(0, end) == value) return true;
    values.remove_prefix(std::min(end + 1, values.size()));
  }
  return false;
}

const Unneeded* find(std::string_view flag) {
  const auto* found =
      std::find_if(kUnneeded.begin(), kUnneeded.end(), [&](const Unneeded& u) { return u.flag == flag; });
  return found == kUnneeded.end() ? nullptr : found;
}

}  // namespace

std::vector<std::string> take_unneeded_flags(std::vector<std::string>& words,
                                             const std::vector<std::string>& known) {
  std::vector<std::string> kept;
  std::vector<std::string> lines;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const size_t equals = word.find('=');
    const std::string flag = word.substr(0, equals);
    const Unneeded* found = std::find(known.begin(), known.end(), flag) == known.end() ? find(flag) : nullptr;
    std::optional<std::string> value;
    if (equals != std::string::npos) value = word.substr(equals + 1);
    bool took_next = false;
    if (found != nullptr && !found->values.empty() && !value && i + 1 < words.size() &&
        words[i + 1].rfind("--", 0) != 0) {
      value = words[i + 1];
      took_next = true;
    }
    const bool good =
        found != nullptr && (found->values.empty() ? !value : value && stands_in(*value, found->values));
    if (!good) {
      kept.push_back(word);
      continue;
    }
    lines.push_back(fmt::format("{} is not needed: {}", flag, found->reason));
    if (took_next) ++i;
  }
  words = std::move(kept);
  return lines;
}

std::optional<std::string> form_of_unneeded_flag(const std::string& flag) {
  const Unneeded* found = find(flag);
  if (found == nullptr) return std::nullopt;
  return found->values.empty() ? "no value" : "a value";
}

}  // namespace fathom::app
