#include "text/template/chat_template.h"

#include <nlohmann/json.hpp>

#include "text/template/failure.h"
#include "text/template/interpreter.h"
#include "text/template/parser.h"
#include "text/template/scope.h"

namespace fathom::text {

struct ChatTemplate::Parsed {
  std::string source;
  jinja::Program program;
  std::optional<PromptEncoding> encoding;  // instead of the program
};

namespace {

Error to_error(const jinja::Failure& failure) {
  if (failure.by_request) return {ErrorCode::kInvalidArgument, failure.message};
  return error(ErrorCode::kInvalidArgument, "chat template, line {}: {}", failure.line, failure.message);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string source) {
  constexpr size_t kMaxSource = size_t{4} << 20;
  if (source.size() > kMaxSource) {
    return error(ErrorCode::kInvalidArgument, "a chat template of {} bytes; at most {} are read",
                 source.size(), kMaxSource);
  }
  try {
    auto parsed = std::make_shared<Parsed>();
    parsed->source = std::move(source);
    parsed->program = jinja::parse_program(parsed->source);
    jinja::resolve_scopes(parsed->program);
    return ChatTemplate(std::move(parsed));
  } catch (const jinja::Failure& failure) {
    return to_error(failure);
  }
}

ChatTemplate::ChatTemplate(PromptEncoding encoding) {
  auto parsed = std::make_shared<Parsed>();
  parsed->encoding = encoding;
  parsed_ = std::move(parsed);
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables, RenderLimits limits) const {
  if (!variables.is_object()) {
    return error(ErrorCode::kInvalidArgument,
                 "the variables of a chat template must be a JSON object, not {}", variables.type_name());
  }
  if (parsed_->encoding) return encode_prompt(*parsed_->encoding, variables, limits.max_output_bytes);
  try {
    return jinja::Interpreter(parsed_->program, variables, limits).run();
  } catch (const jinja::Failure& failure) {
    return to_error(failure);
  }
}

const std::string& ChatTemplate::source() const {
  return parsed_->source;
}

std::optional<PromptEncoding> ChatTemplate::encoding() const {
  return parsed_->encoding;
}

}  // namespace fathom::text
