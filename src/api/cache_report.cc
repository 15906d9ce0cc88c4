#include "api/cache_report.h"

#include <algorithm>
#include <span>

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr size_t kTokensAround = 16;

// Text, or ids where there is no tokenizer.
ordered_json words(const ServiceContext& context, std::span<const int32_t> ids) {
  if (context.tokenizer == nullptr) return std::vector<int32_t>(ids.begin(), ids.end());
  return context.tokenizer->decode(ids, false);
}

}  // namespace

ordered_json cache_miss_json(const ServiceContext& context, const Choice& choice) {
  if (!choice.cache_miss) return nullptr;
  const CacheMiss& miss = *choice.cache_miss;
  ordered_json out = {{"reason", to_string(miss.reason)}, {"hit_tokens", choice.cached_tokens}};
  // Where the cache goes on otherwise is a word of somebody's prompt.
  if (context.options.cache_explanations == CacheExplanations::kReasons) return out;
  const std::span<const int32_t> prompt(choice.spec.prompt);
  const auto at = std::min(static_cast<size_t>(miss.at_token), prompt.size());
  const size_t before = std::min(at, kTokensAround);
  out["at_token"] = miss.at_token;
  out["before_text"] = words(context, prompt.subspan(at - before, before));
  out["got_text"] = words(context, prompt.subspan(at, std::min(kTokensAround, prompt.size() - at)));
  if (miss.reason == MissReason::kFirstDifference) out["expected_text"] = words(context, miss.expected);
  return out;
}

void add_cache_miss(const ServiceContext& context, const std::vector<Choice>& choices, ordered_json* usage) {
  for (const Choice& choice : choices) {
    if (!choice.cache_miss) continue;
    (*usage)["prompt_cache_miss"] = cache_miss_json(context, choice);
    return;
  }
}

}  // namespace fathom::api
