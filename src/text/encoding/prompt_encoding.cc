#include "text/encoding/prompt_encoding.h"

#include "text/encoding/conversation.h"

namespace fathom::text {
namespace {

using encoding::get;
using nlohmann::ordered_json;

struct Name {
  PromptEncoding encoding;
  std::string_view name;
};
constexpr Name kNames[] = {{PromptEncoding::kV32, "deepseek-v32"},
                           {PromptEncoding::kV4Preview, "deepseek-v4-preview"},
                           {PromptEncoding::kV4, "deepseek-v4"}};

// The efforts' texts, as the models were trained on them.
constexpr std::string_view kThorough =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the "
    "root "
    "cause, rigorously stress-testing your logic against all potential paths, edge cases, and adversarial "
    "scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n";
constexpr std::string_view kExhaustive =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively "
    "decompose the problem into its most fundamental components, trace every causal chain to its root, and "
    "resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles and are "
    "certain that no assumption remains unchecked and no error remains undiscovered.\n\n";

enum class Effort { kLow, kHigh, kMax };

// V4 has three efforts; OpenAI's other names and numbers go to the nearest.
Effort effort_of(const ordered_json& variables) {
  const ordered_json* given = get(variables, "reasoning_effort");
  if (given == nullptr) return Effort::kLow;
  if (given->is_number()) {
    const double share = given->get<double>();
    return share < 1.0 / 3 ? Effort::kLow : share < 2.0 / 3 ? Effort::kHigh : Effort::kMax;
  }
  if (*given == "max" || *given == "xhigh") return Effort::kMax;
  return *given == "medium" || *given == "high" ? Effort::kHigh : Effort::kLow;
}

std::string_view effort_text(PromptEncoding encoding, const ordered_json& variables) {
  const Effort effort = effort_of(variables);
  if (encoding == PromptEncoding::kV4Preview) return effort == Effort::kMax ? kThorough : std::string_view();
  if (effort == Effort::kMax) return kExhaustive;
  return effort == Effort::kHigh ? kThorough : std::string_view();
}

}  // namespace

std::string_view to_string(PromptEncoding encoding) {
  for (const Name& entry : kNames) {
    if (entry.encoding == encoding) return entry.name;
  }
  return {};
}

std::optional<PromptEncoding> parse_prompt_encoding(std::string_view name) {
  for (const Name& entry : kNames) {
    if (entry.name == name) return entry.encoding;
  }
  return std::nullopt;
}

std::optional<PromptEncoding> find_prompt_encoding(std::string_view architecture, std::string_view encoder) {
  if (architecture.starts_with("DeepseekV32")) return PromptEncoding::kV32;
  if (!architecture.starts_with("DeepseekV4")) return std::nullopt;
  const bool three_efforts = encoder.find("REASONING_EFFORT_PROMPTS") != std::string_view::npos;
  return three_efforts ? PromptEncoding::kV4 : PromptEncoding::kV4Preview;
}

Result<std::string> encode_prompt(PromptEncoding encoding, const ordered_json& variables, size_t max_bytes) {
  if (!variables.is_object() || get(variables, "messages") == nullptr || !variables["messages"].is_array()) {
    return error(ErrorCode::kInvalidArgument, "the variables of a prompt must be an object with `messages`");
  }
  const encoding::Conversation conversation(variables);
  if (encoding == PromptEncoding::kV32) return encode_v32(conversation, max_bytes);
  encoding::V4Options options;
  options.effort_text = effort_text(encoding, variables);
  options.task = encoding::text_of(variables, "task");
  return encode_v4(conversation, options, max_bytes);
}

}  // namespace fathom::text
