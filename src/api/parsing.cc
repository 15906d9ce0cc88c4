// POST /separate_reasoning, /parse_function_call and /apply-template: the text layer on its own.

#include "api/chat_messages.h"
#include "api/chat_request.h"
#include "api/endpoints.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using text::OutputPiece;

constexpr size_t kMaxText = size_t{8} << 20;

// Reads `text` and the parser's name, which may be left out.
Refusal read_text(const ServiceContext& context, const http::Request& request, const char* parser_field,
                  ordered_json* body, std::string* text, text::AnswerParsers* parsers, bool* blocks) {
  if (Refusal refusal = read_body(context, request, body)) return refusal;
  Fields fields(*body, "", "request", context.field_log);
  std::string parser;
  if (!fields.string("text", kMaxText, text) && !fields.failed())
    fields.fail("text", "is missing, expected a string");
  const bool named = fields.string(parser_field, 64, &parser);
  if (blocks != nullptr) fields.boolean("return_blocks", blocks);
  const ordered_json* tools = fields.list("tools");
  if (tools != nullptr && !fields.failed()) {
    if (Refusal refusal = check_tools(context.options.limits, *tools)) fields.fail(*refusal);
  }
  *parsers = context.options.parsers;
  if (named && !fields.failed()) {
    const bool reasoning = std::string_view(parser_field) == "reasoning_parser";
    Result<text::AnswerParsers> chosen =
        text::choose_parsers(reasoning ? parser : "none", reasoning ? "none" : parser, context.chat_template,
                             context.card.architectures.empty() ? "" : context.card.architectures[0]);
    if (!chosen.ok()) fields.fail(parser_field, chosen.error().message);
    if (chosen.ok()) *parsers = *chosen;
  }
  return fields.finish();
}

std::vector<OutputPiece> split(const text::AnswerFormat& format, std::string_view text) {
  text::AnswerSplitter splitter(format);
  std::vector<OutputPiece> pieces;
  splitter.push(text, &pieces);
  splitter.finish(&pieces);
  return pieces;
}

}  // namespace

void handle_separate_reasoning(const ServiceContext& context, const http::Request& request,
                               http::ResponseWriter& writer) {
  ordered_json body;
  std::string text;
  text::AnswerParsers parsers;
  bool blocks = false;
  if (Refusal refusal = read_text(context, request, "reasoning_parser", &body, &text, &parsers, &blocks)) {
    return writer.send(error_response(*refusal));
  }
  text::AnswerFormat format;
  if (parsers.reasoning == text::ReasoningStyle::kForced) format.start = text::ReasoningStart::kThinking;
  if (parsers.reasoning == text::ReasoningStyle::kSwitched) {
    // Without the prompt: a closing tag alone says that it was opened there.
    const bool closes = text.find(text::kThinkEnd) != std::string::npos;
    format.start = closes ? text::ReasoningStart::kThinking : text::ReasoningStart::kDetect;
  }
  std::string reasoning;
  std::string content;
  ordered_json list = ordered_json::array();
  for (const OutputPiece& piece : split(format, text)) {
    const bool thought = piece.kind == OutputPiece::Kind::kReasoning;
    (thought ? reasoning : content) += piece.text;
    list.push_back({{"type", thought ? "reasoning" : "text"}, {"text", piece.text}});
  }
  ordered_json answer = {{"reasoning_text", reasoning}, {"text", content}};
  if (blocks) answer["blocks"] = std::move(list);
  writer.send(json_response(answer));
}

void handle_parse_function_call(const ServiceContext& context, const http::Request& request,
                                http::ResponseWriter& writer) {
  ordered_json body;
  std::string text;
  text::AnswerParsers parsers;
  if (Refusal refusal = read_text(context, request, "tool_call_parser", &body, &text, &parsers, nullptr)) {
    return writer.send(error_response(*refusal));
  }
  text::AnswerFormat format;
  format.tools = parsers.tools;
  std::string content;
  ordered_json calls = ordered_json::array();
  for (const OutputPiece& piece : split(format, text)) {
    if (piece.kind == OutputPiece::Kind::kCall) {
      calls.push_back({{"tool_index", calls.size()}, {"name", piece.text}, {"parameters", ""}});
    } else if (piece.kind == OutputPiece::Kind::kArguments) {
      calls.back()["parameters"] = calls.back()["parameters"].get<std::string>() + piece.text;
    } else {
      content += piece.text;
    }
  }
  writer.send(json_response({{"normal_text", content}, {"calls", std::move(calls)}}));
}

void handle_apply_template(const ServiceContext& context, const http::Request& request,
                           http::ResponseWriter& writer) {
  ordered_json body;
  if (Refusal refusal = read_body(context, request, &body)) return writer.send(error_response(*refusal));
  Fields fields(body, "", "request", context.field_log);
  std::string model;
  fields.string("model", 4096, &model);
  Conversation conversation;
  read_conversation(context, model, fields, &conversation);
  if (!fields.failed() && conversation.messages.is_null()) {
    fields.fail("messages", "is missing, expected a list of messages");
  }
  Refusal refusal = fields.finish();
  if (!refusal) refusal = check_model(context, model);
  ChatPrompt prompt;
  if (!refusal) refusal = make_chat_prompt(context, conversation, {}, &prompt);
  if (refusal) return writer.send(error_response(*refusal));
  writer.send(json_response({{"prompt", prompt.text}, {"count", prompt.ids.size()}}));
}

}  // namespace fathom::api
