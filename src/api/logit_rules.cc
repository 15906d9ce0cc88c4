#include "api/logit_rules.h"

#include <algorithm>
#include <limits>

#include "api/context.h"
#include "api/json_body.h"
#include "api/request_run.h"
#include "api/sampling_fields.h"
#include "text/logits/pickled_class.h"
#include "text/reasoning/reasoning_splitter.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kModule = "sglang.srt.sampling.custom_logit_processor";

// A class's custom_params, into rules.
void read_budget_params(const ServiceContext& /*context*/, Fields& params, LogitRules* out) {
  // A negative budget is none, as in the reference system.
  int32_t budget = -1;
  if (params.int32("thinking_budget", INT32_MIN, INT32_MAX, &budget) && budget >= 0) {
    out->thinking_budget = budget;
  }
}

void read_disallowed_params(const ServiceContext& context, Fields& params, LogitRules* out) {
  const bool given =
      params.integers("token_ids", kMaxDisallowed, 0, context.card.vocab_size - 1, &out->disallowed);
  if (!given) params.fail("token_ids", "is missing, expected a list of token ids");
}

void read_no_repeat_params(const ServiceContext& context, Fields& params, LogitRules* out) {
  text::NoRepeatRule rule;
  if (!params.int32("ngram_size", 1, kMaxNGram, &rule.ngram)) {
    params.fail("ngram_size", "is missing, expected a number of tokens");
  }
  if (!params.int32("window_size", 1, kMaxNGramWindow, &rule.window)) {
    params.fail("window_size", "is missing, expected a number of tokens");
  }
  params.integers("whitelist_token_ids", kMaxDisallowed, 0, context.card.vocab_size - 1, &rule.allowed);
  out->no_repeat = std::move(rule);
}

struct KnownProcessor {
  std::string_view name;
  void (*read)(const ServiceContext&, Fields&, LogitRules*);
};
constexpr KnownProcessor kKnown[] = {
    {"DeepSeekR1ThinkingBudgetLogitProcessor", read_budget_params},
    {"DeepSeekV3ThinkingBudgetLogitProcessor", read_budget_params},
    {"DisallowedTokensLogitsProcessor", read_disallowed_params},
    {"DeepseekOCRNoRepeatNGramLogitProcessor", read_no_repeat_params},
};

std::string known_names() {
  std::string names;
  for (const KnownProcessor& known : kKnown)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  return names;
}

// What pairs of hexadecimal digits stand for.
std::optional<std::string> from_hex(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]);
    const int low = digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

ApiError wrong(const std::string& name, const std::string& message) {
  return {400, fmt::format("{}: {}", name, message), name, {}};
}

// Which of the known classes the text names, or why none.
Refusal find_processor(const std::string& name, const std::string& text, const KnownProcessor** out) {
  static const std::string kExpected =
      "expected what to_str() of a logit processor gives, {\"callable\": HEX}";
  const Result<ordered_json> wrapped = parse_json_object(text);
  if (!wrapped.ok()) return wrong(name, kExpected);
  const auto callable = wrapped->find("callable");
  if (callable == wrapped->end() || !callable->is_string()) return wrong(name, kExpected);
  const std::optional<std::string> pickle = from_hex(callable->get_ref<const std::string&>());
  if (!pickle) return wrong(name, kExpected + "; callable is not hexadecimal");
  const Result<text::PickledClass> found = text::read_pickled_class(*pickle);
  if (!found.ok()) {
    return wrong(name, fmt::format("{}. This server runs no code of a request; it knows {} by name, of {}",
                                   found.error().message, known_names(), kModule));
  }
  for (const KnownProcessor& known : kKnown) {
    if (found->module != kModule || found->name != known.name) continue;
    *out = &known;
    return std::nullopt;
  }
  const bool other_model = found->module == kModule && found->name.ends_with("ThinkingBudgetLogitProcessor");
  if (other_model) {
    return wrong(name, fmt::format("{} is for another model's tokens; DeepSeekR1ThinkingBudgetLogitProcessor "
                                   "or the field thinking_budget bound this model's thoughts",
                                   found->name));
  }
  return wrong(name, fmt::format("got the class {} of {}; this server runs no code of a request and knows {} "
                                 "by name, of {}",
                                 describe(found->name), describe(found->module), known_names(), kModule));
}

// Tokens since the last "<think>" that no "</think>" follows; -1 when there is none.
int32_t open_thoughts(const std::vector<int32_t>& prompt, const AnswerTokens& tokens) {
  for (size_t i = prompt.size(); i > 0; --i) {
    if (prompt[i - 1] == tokens.think_end) return -1;
    if (prompt[i - 1] == tokens.think_start) return static_cast<int32_t>(prompt.size() - i);
  }
  return -1;
}

}  // namespace

void read_thinking_budget(Fields& fields, LogitRules* out) {
  for (const char* name : {"thinking_budget", "max_thinking_tokens"}) {
    int32_t budget = 0;
    if (!fields.int32(name, 0, INT32_MAX, &budget)) continue;
    if (out->thinking_budget && *out->thinking_budget != budget) {
      fields.fail(name, fmt::format("got {}, and {} by its other name", budget, *out->thinking_budget));
    }
    out->thinking_budget = budget;
  }
}

Refusal read_logit_processor(const ServiceContext& context, const std::string& name,
                             const ordered_json& processor, const ordered_json& custom_params,
                             LogitRules* out) {
  if (!context.options.custom_logit_processors) {
    return ApiError{400,
                    "The server is not configured to enable custom logit processor. Please set "
                    "`--enable-custom-logit-processor` to enable this feature.",
                    name,
                    {}};
  }
  if (!processor.is_string()) {
    return wrong(name, fmt::format("got {}, expected a string", describe(processor)));
  }
  const auto& text = processor.get_ref<const std::string&>();
  if (text.size() > kMaxProcessorBytes) {
    return wrong(name, fmt::format("got {} bytes, expected at most {}: a class's name is short", text.size(),
                                   kMaxProcessorBytes));
  }
  const KnownProcessor* known = nullptr;
  if (Refusal refusal = find_processor(name, text, &known)) return refusal;
  const ordered_json none = ordered_json::object();
  if (!custom_params.is_null() && !custom_params.is_object()) {
    return wrong("custom_params", fmt::format("got {}, expected an object", describe(custom_params)));
  }
  Fields params(custom_params.is_null() ? none : custom_params, "custom_params.", "custom_params");
  LogitRules rules = *out;
  known->read(context, params, &rules);
  if (Refusal refusal = params.finish()) return refusal;
  if (out->thinking_budget && rules.thinking_budget != out->thinking_budget) {
    return wrong(name, "bounds the thoughts by another number than thinking_budget does");
  }
  *out = std::move(rules);
  return std::nullopt;
}

Refusal apply_logit_rules(const ServiceContext& context, const LogitRules& rules, RunSpec* spec) {
  if (rules.thinking_budget) {
    const AnswerTokens& tokens = context.answer_tokens;
    if (context.tokenizer == nullptr || tokens.think_end < 0) {
      return unsupported("thinking_budget", context.tokenizer == nullptr
                                                ? "needs a tokenizer, and this server runs without one"
                                                : "the model's tokenizer has no </think>");
    }
    ThinkingBudget& budget = spec->sampling.thinking;
    budget.tokens = *rules.thinking_budget;
    budget.start = tokens.think_start;
    budget.end = tokens.think_end;
    budget.line_break = tokens.line_break;
    budget.begun = open_thoughts(spec->prompt, tokens);
  }
  for (const int32_t token : rules.disallowed) {
    auto& bias = spec->sampling.logit_bias;
    std::erase_if(bias, [token](const auto& entry) { return entry.first == token; });
    bias.emplace_back(token, -std::numeric_limits<float>::infinity());
    const size_t most = context.options.limits.logit_bias;
    if (bias.size() > most) {
      return unsupported("custom_params.token_ids", fmt::format("with logit_bias more than {} tokens", most));
    }
  }
  if (rules.no_repeat) {
    std::shared_ptr<const TokenMaskSource> mask =
        std::make_shared<text::NoRepeatMaskSource>(*rules.no_repeat, spec->prompt);
    if (spec->mask != nullptr) mask = std::make_shared<text::JointMaskSource>(spec->mask, std::move(mask));
    spec->mask = std::move(mask);
  }
  return std::nullopt;
}

}  // namespace fathom::api
