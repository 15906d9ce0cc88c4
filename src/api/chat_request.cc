#include "api/chat_request.h"

#include "api/chat_messages.h"
#include "text/template/chat_template.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// {"type": "function", "function": {"name": ...}}, one of the tools.
bool read_named_tool(const ordered_json& choice, const ordered_json& tools, Fields& fields,
                     std::string* name) {
  Fields outer(choice, "tool_choice.", "tool_choice");
  std::string type;
  outer.string("type", 64, &type);
  const ordered_json* function = outer.object("function");
  if (type != "function" || function == nullptr) {
    fields.fail("tool_choice", "expected {\"type\": \"function\", \"function\": {\"name\": ...}}");
    return false;
  }
  Fields inner(*function, "tool_choice.function.", "function");
  inner.string("name", 256, name);
  Refusal refusal = outer.finish();
  if (!refusal) refusal = inner.finish();
  if (refusal) {
    fields.fail(*refusal);
    return false;
  }
  for (const ordered_json& tool : tools) {
    if (tool["function"]["name"] == *name) return true;
  }
  fields.fail("tool_choice.function.name", fmt::format("there is no tool '{}'", *name));
  return false;
}

void read_tools(const ServiceContext& context, Fields& fields, Conversation* out) {
  const ordered_json* tools = fields.list("tools");
  if (tools != nullptr) {
    if (Refusal refusal = check_tools(context.options.limits, *tools)) return fields.fail(*refusal);
  }
  const ordered_json* choice = fields.any("tool_choice");
  const bool any = tools != nullptr && !tools->empty();
  using Choice = Conversation::ToolChoice;
  if (choice == nullptr || *choice == "auto") {
    out->tool_choice = any ? Choice::kAuto : Choice::kNone;
  } else if (*choice == "required") {
    out->tool_choice = Choice::kRequired;
  } else if (choice->is_object()) {
    out->tool_choice = Choice::kNamed;
    if (!read_named_tool(*choice, any ? *tools : ordered_json::array(), fields, &out->named_tool)) return;
  } else if (*choice != "none") {
    return fields.fail_type("tool_choice",
                            "\"auto\", \"none\", \"required\" or a function's name in an object", *choice);
  }
  out->refuses_calls = choice != nullptr && *choice == "none";
  if (out->tool_choice == Choice::kNone) return;
  if (!any) return fields.fail("tool_choice", "asks for a call, but there are no tools");
  out->tools = *tools;
}

bool is_set_by_server(std::string_view template_variable) {
  return template_variable == "messages" || template_variable == "tools" ||
         template_variable == "add_generation_prompt";
}

// Where thinking is given by one name it is by the other too: templates differ, and the server's default
// under the other name must not win.
ordered_json with_both_names(ordered_json kwargs) {
  const bool thinking = kwargs.contains("thinking");
  if (thinking == kwargs.contains("enable_thinking")) return kwargs;
  const char* const given = thinking ? "thinking" : "enable_thinking";
  const ordered_json value = kwargs[given];
  kwargs[thinking ? "enable_thinking" : "thinking"] = value;
  return kwargs;
}

// From weak to strong: the server's default kwargs, reasoning_effort, reasoning, thinking, the request's
// kwargs.
void read_template_kwargs(const ServiceContext& context, const std::string& model, Fields& fields,
                          Conversation* out) {
  out->template_kwargs = default_kwargs(context, model);
  if (const ordered_json* effort = fields.any("reasoning_effort")) {
    read_effort("reasoning_effort", *effort, fields, &out->template_kwargs);
  }
  if (const ordered_json* reasoning = fields.object("reasoning")) {
    Fields inner(fields, *reasoning, "reasoning");
    bool enabled = true;
    if (inner.boolean("enabled", &enabled)) set_thinking(enabled, &out->template_kwargs);
    if (const ordered_json* effort = inner.any("effort")) {
      read_effort("effort", *effort, inner, &out->template_kwargs);
    }
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
  if (const ordered_json* thinking = fields.object("thinking")) {
    Fields inner(fields, *thinking, "thinking");
    const ordered_json* type = inner.any("type");
    if (type == nullptr || (*type != "enabled" && *type != "disabled")) {
      inner.fail("type", "expected \"enabled\" or \"disabled\"");
    } else {
      set_thinking(*type == "enabled", &out->template_kwargs);
    }
    int32_t budget = 0;
    if (inner.int32("budget_tokens", 0, INT32_MAX, &budget)) out->thinking_budget = budget;
    if (Refusal refusal = inner.finish()) fields.fail(*refusal);
  }
  if (const ordered_json* given = fields.object("chat_template_kwargs")) {
    const ordered_json kwargs = with_both_names(*given);
    for (const auto& [key, value] : kwargs.items()) {
      if (is_set_by_server(key)) return fields.fail("chat_template_kwargs." + key, "is set by the server");
      out->template_kwargs[key] = value;
    }
  }
}

std::optional<text::PromptEncoding> encoding_of(const ServiceContext& context) {
  return context.chat_template == nullptr ? std::nullopt : context.chat_template->encoding();
}

// V4's small jobs: a title, a search query, ...
void read_task(const ServiceContext& context, Fields& fields, Conversation* out) {
  std::string task;
  if (!fields.string("task", 64, &task)) return;
  const auto encoding = encoding_of(context);
  if (!encoding || *encoding == text::PromptEncoding::kV32) {
    return fields.fail(unsupported("task", "is V4's, and this model has another prompt format"));
  }
  out->template_kwargs["task"] = task;
}

bool is_true(const ordered_json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && *it == true;
}

void read_continuation(const ordered_json* given, Fields& fields, Conversation* out) {
  bool asked = false;
  fields.boolean("continue_final_message", &asked);
  bool begins = true;
  const bool says = fields.boolean("add_generation_prompt", &begins);
  if (given == nullptr || given->empty() || fields.failed()) return;
  for (size_t i = 0; i < given->size(); ++i) {
    const ordered_json& message = (*given)[i];
    const auto prefix = message.find("prefix");
    if (prefix == message.end() || prefix->is_null() || *prefix == false) continue;
    const bool good = *prefix == true && i + 1 == given->size();
    if (!good) {
      return fields.fail(fmt::format("messages[{}].prefix", i),
                         "expected true or false, and true on the last message only");
    }
  }
  const bool continues = asked || is_true(given->back(), "prefix");
  if (says && begins == continues) {
    return fields.fail("add_generation_prompt",
                       continues ? "got true, expected false: the answer goes on after the last message"
                                 : "got false, expected true: the answer is a new message; to go on after "
                                   "the last one set continue_final_message to true");
  }
  if (!continues) return;
  ordered_json& last = out->messages.back();
  if (last["role"] != "assistant") {
    return fields.fail(fmt::format("messages[{}].role", given->size() - 1),
                       "expected assistant: only an assistant's message can be continued");
  }
  out->continues = true;
  if (last["content"].is_string()) out->continued_content = last["content"];
  if (last.contains("reasoning_content")) out->continued_reasoning = last["reasoning_content"];
  out->messages.erase(out->messages.size() - 1);
  if (out->messages.empty()) fields.fail("messages", "expected a message before the one to continue");
}

void read_logprobs(Fields& fields, ChatRequest* out) {
  fields.boolean("logprobs", &out->logprobs);
  if (fields.int32("top_logprobs", 0, kMaxTopLogprobs, &out->top_logprobs) && out->top_logprobs > 0 &&
      !out->logprobs) {
    fields.fail("top_logprobs", "needs logprobs to be true");
  }
}

void read_token_limit(Fields& fields, ChatRequest* out) {
  int32_t limit = 0;
  if (fields.int32("max_tokens", 1, INT32_MAX, &limit)) out->sampling.max_new_tokens = limit;
  if (fields.int32("max_completion_tokens", 1, INT32_MAX, &limit)) out->sampling.max_new_tokens = limit;
}

// A grammar for the calls, where the request must have them or a tool's schema must be kept.
void constrain_calls(const ServiceContext& context, Fields& fields, ChatRequest* out) {
  using Choice = Conversation::ToolChoice;
  const Conversation& conversation = out->conversation;
  if (conversation.tools.is_null()) return;
  const bool forced = conversation.tool_choice != Choice::kAuto;
  text::ToolGrammar grammar;
  bool strict = false;
  for (const ordered_json& tool : conversation.tools) {
    const ordered_json& function = tool["function"];
    const auto name = function["name"].get<std::string>();
    if (conversation.tool_choice == Choice::kNamed && name != conversation.named_tool) continue;
    const bool keeps = function.contains("strict") && function["strict"] == true;
    strict = strict || keeps;
    grammar.tools.push_back({name, function.value("parameters", ordered_json()), keeps});
  }
  OutputForm& form = out->sampling.form;
  if (!forced && (!strict || form.kind != OutputForm::Kind::kFree)) return;
  if (form.kind != OutputForm::Kind::kFree) {
    return fields.fail("tool_choice", fmt::format("a call cannot be forced beside {}", form.field));
  }
  if (context.options.parsers.tools == text::ToolFormat::kNone) {
    return fields.fail(
        unsupported(forced ? "tool_choice" : "tools",
                    "calls are not told from text: the server runs without a tool call parser"));
  }
  grammar.format = context.options.parsers.tools;
  grammar.required = forced;
  grammar.parallel = out->answer.parallel_calls;
  form.kind = OutputForm::Kind::kToolCalls;
  form.field = forced ? "tool_choice" : "tools";
  form.tools = std::move(grammar);
}

void read_answer_options(const ServiceContext& context, Fields& fields, ChatRequest* out) {
  AnswerOptions& answer = out->answer;
  fields.boolean("separate_reasoning", &answer.format.separate_reasoning);
  fields.boolean("stream_reasoning", &answer.format.stream_reasoning);
  fields.boolean("parallel_tool_calls", &answer.parallel_calls);
  set_answer_options(context, fields, out);
}

// What OpenAI's API has and this server does not, and what changes nothing here.
void read_openai_extras(Fields& fields) {
  if (const ordered_json* modalities = fields.list("modalities")) {
    if (*modalities != ordered_json::array({"text"})) {
      fields.fail(unsupported("modalities", "only [\"text\"] is available"));
    }
  }
  fields.refuse({"functions", "function_call"}, "is not available; use tools and tool_choice");
  fields.refuse({"audio"}, "is not available: the model writes text only");
  fields.refuse({"web_search_options"}, "the server reads nothing from the network");
  // Labels, hints and switches of the hosted service.
  fields.accept({"user", "user_id", "store", "metadata", "service_tier", "prediction", "verbosity",
                 "safety_identifier", "prompt_cache_key", "prompt_cache_retention"});
}

}  // namespace

Result<ordered_json> parse_default_kwargs(std::string_view json) {
  constexpr std::string_view kFlag = "--default-chat-template-kwargs";
  ordered_json kwargs = ordered_json::parse(json, nullptr, false);
  if (!kwargs.is_object()) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: got '{}', expected a JSON object, as {{\"thinking\": true}}", kFlag, std::string(json));
  }
  for (const auto& [key, value] : kwargs.items()) {
    if (is_set_by_server(key)) {
      return error(ErrorCode::kInvalidArgument, "{}: '{}' is set by the server; leave it out", kFlag, key);
    }
  }
  return with_both_names(std::move(kwargs));
}

void set_thinking(bool thinking, ordered_json* kwargs) {
  // DeepSeek's templates call it `thinking`, others `enable_thinking`.
  (*kwargs)["thinking"] = thinking;
  (*kwargs)["enable_thinking"] = thinking;
}

bool read_effort(std::string_view name, const ordered_json& effort, Fields& fields, ordered_json* kwargs) {
  static constexpr std::string_view kNames[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
  bool known = false;
  if (effort.is_string()) {
    for (std::string_view candidate : kNames) known = known || effort == candidate;
  } else if (effort.is_number()) {
    known = effort.get<double>() >= 0.0 && effort.get<double>() <= 0.99;
  }
  if (!known) {
    fields.fail_type(name, "one of none, minimal, low, medium, high, xhigh, max, or a number from 0 to 0.99",
                     effort);
    return false;
  }
  set_thinking(effort != "none", kwargs);
  (*kwargs)["reasoning_effort"] = effort;
  return true;
}

void set_answer_options(const ServiceContext& context, Fields& fields, ChatRequest* out) {
  AnswerOptions& answer = out->answer;
  answer.think_start = context.answer_tokens.think_start;
  answer.think_end = context.answer_tokens.think_end;
  const text::AnswerParsers& parsers = context.options.parsers;
  const bool tools = !out->conversation.tools.is_null();
  if (tools) answer.format.tools = parsers.tools;
  // Without a parser the client reads the calls out of the text, special tokens and all.
  if (tools && parsers.tools == text::ToolFormat::kNone) out->sampling.skip_special_tokens = false;
  const bool parsed =
      parsers.reasoning != text::ReasoningStyle::kNone || answer.format.tools != text::ToolFormat::kNone;
  if (parsed) out->sampling.kept_special_tokens = context.answer_tokens.markers;
  if (!fields.failed()) constrain_calls(context, fields, out);
}

ordered_json default_kwargs(const ServiceContext& context, const std::string& model) {
  ordered_json kwargs = context.options.default_chat_template_kwargs;
  if (model == context.card.served_model_name) return kwargs;
  if (model == "deepseek-reasoner") set_thinking(true, &kwargs);
  if (model == "deepseek-chat") set_thinking(false, &kwargs);
  return kwargs;
}

void read_conversation(const ServiceContext& context, const std::string& model, Fields& fields,
                       Conversation* out) {
  const ordered_json* messages = fields.list("messages");
  if (messages != nullptr) {
    if (Refusal refusal =
            normalize_messages(context.options.limits, *messages, encoding_of(context), &out->messages)) {
      fields.fail(*refusal);
    }
  }
  read_tools(context, fields, out);
  read_template_kwargs(context, model, fields, out);
  read_task(context, fields, out);
  bool split = true;
  if (fields.boolean("split_special_tokens", &split)) out->split_special_tokens = split;
  read_continuation(messages, fields, out);
}

Refusal read_chat_request(const ServiceContext& context, const ordered_json& body, ChatRequest* out) {
  Fields fields(body, "", "request", context.field_log);
  fields.string("model", 4096, &out->model);
  if (!fields.failed()) {
    if (Refusal refusal = check_model(context, out->model)) return refusal;
  }
  read_conversation(context, out->model, fields, &out->conversation);
  fields.integers("input_ids", SIZE_MAX, 0, context.card.vocab_size - 1, &out->input_ids);
  const bool messages = !out->conversation.messages.is_null();
  if (out->input_ids.empty() && !messages) {
    fields.fail("messages", "is missing, expected a list of messages");
  } else if (!out->input_ids.empty() && messages) {
    fields.fail("input_ids", "there are messages too, expected either messages or input_ids");
  }
  read_token_limit(fields, out);
  read_sampling(context, Dialect::kOpenAi, fields, &out->sampling);
  if (out->conversation.thinking_budget) {
    std::optional<int32_t>& budget = out->sampling.rules.thinking_budget;
    if (budget && budget != out->conversation.thinking_budget) {
      fields.fail("thinking.budget_tokens", fmt::format("differs from thinking_budget, {}", *budget));
    }
    budget = out->conversation.thinking_budget;
  }
  const OutputForm& form = out->sampling.form;
  if (encoding_of(context) && form.kind == OutputForm::Kind::kJsonSchema) {
    out->conversation.response_format = form.schema;
  }
  read_answer_options(context, fields, out);
  read_logprobs(fields, out);
  read_stream_options(fields, &out->stream);
  read_request_options(fields, &out->options);
  // Where a stream tells of the prompt.
  out->stream.include_usage = out->stream.include_usage || out->options.explain_cache;
  fields.boolean("return_prompt_token_ids", &out->return_prompt_token_ids);
  fields.boolean("return_token_ids", &out->return_token_ids);
  fields.boolean("return_meta_info", &out->return_meta_info);
  if (out->stream.stream &&
      (out->return_prompt_token_ids || out->return_token_ids || out->return_meta_info)) {
    fields.fail("stream",
                "cannot be true with return_prompt_token_ids, return_token_ids or return_meta_info");
  }
  read_openai_extras(fields);
  refuse_unavailable(fields);
  return fields.finish();
}

}  // namespace fathom::api
