// What a request wants done to its logits besides sampling: a bound on the thoughts, and the reference
// system's custom logit processors. Those come as pickled Python classes; the known ones are recognised by
// name and done natively, and nothing is ever unpickled.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/errors.h"
#include "api/fields.h"
#include "text/logits/no_repeat_mask.h"

namespace fathom::api {

struct ServiceContext;
struct RunSpec;

inline constexpr size_t kMaxProcessorBytes = 64 << 10;  // of custom_logit_processor
inline constexpr size_t kMaxDisallowed = 1024;
inline constexpr int32_t kMaxNGram = 1024;
inline constexpr int32_t kMaxNGramWindow = 32768;

struct LogitRules {
  std::optional<int32_t> thinking_budget;  // tokens
  std::vector<int32_t> disallowed;         // token ids
  std::optional<text::NoRepeatRule> no_repeat;
};

// The native fields, thinking_budget and max_thinking_tokens, which are one.
void read_thinking_budget(Fields& fields, LogitRules* out);

// What the class in `processor`, the value of field `name`, does with these parameters.
Refusal read_logit_processor(const ServiceContext& context, const std::string& name,
                             const nlohmann::ordered_json& processor,
                             const nlohmann::ordered_json& custom_params, LogitRules* out);

// Puts the rules into a run whose prompt, sampling and mask are there.
Refusal apply_logit_rules(const ServiceContext& context, const LogitRules& rules, RunSpec* spec);

}  // namespace fathom::api
