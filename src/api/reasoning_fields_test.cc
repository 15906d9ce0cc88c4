// Every field that switches thinking or shapes its answer, whole and streamed.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json hello(const ordered_json& fields) {
  ordered_json body = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}}};
  if (fields.is_object()) body.update(fields);
  return body;
}

struct Got {
  std::string prompt, reasoning, content;
  int reasoning_pieces = 0;  // of a stream
};

// The answer to `body`, which a stream must give alike.
Got ask(const ordered_json& body, const std::string& says_text, ServiceOptions options = parsing_options()) {
  Desk desk(says(says_text), std::move(options));
  const ordered_json message = desk.json(kChat, body.dump())["choices"][0]["message"];
  Got got;
  const auto ids = desk.sink.requests().at(0).prompt;
  got.prompt = demo_tokenizer().decode(ids, false);
  if (message["reasoning_content"].is_string()) got.reasoning = message["reasoning_content"];
  EXPECT_EQ(message["reasoning"], message["reasoning_content"]);
  EXPECT_TRUE(message["content"].is_string()) << "a client may not expect null";
  got.content = message["content"];

  ordered_json streamed = body;
  streamed["stream"] = true;
  std::string reasoning;
  std::string content;
  for (const auto& event : desk.stream(kChat, streamed.dump())) {
    const auto& delta = event["choices"][0]["delta"];
    if (delta.contains("content") && delta["content"].is_string()) content += delta["content"];
    if (!delta["reasoning_content"].is_string()) continue;
    reasoning += delta["reasoning_content"];
    ++got.reasoning_pieces;
  }
  EXPECT_EQ(reasoning, got.reasoning) << body;
  EXPECT_EQ(content, got.content) << body;
  return got;
}

const std::string kAnswer = "Hm, so.</think>Yes.";

TEST(ReasoningFields, SwitchThinkingOn) {
  for (const ordered_json& fields :
       {ordered_json{{"chat_template_kwargs", {{"thinking", true}}}},
        ordered_json{{"chat_template_kwargs", {{"enable_thinking", true}}}},
        ordered_json{{"thinking", {{"type", "enabled"}}}}, ordered_json{{"reasoning", {{"enabled", true}}}},
        ordered_json{{"reasoning", {{"effort", "low"}}}}, ordered_json{{"reasoning_effort", "minimal"}},
        ordered_json{{"reasoning_effort", "high"}}, ordered_json{{"reasoning_effort", "max"}},
        ordered_json{{"reasoning_effort", 0.5}},
        ordered_json{{"reasoning_effort", "none"}, {"thinking", {{"type", "enabled"}}}}}) {
    const Got got = ask(hello(fields), kAnswer);
    EXPECT_TRUE(got.prompt.ends_with("<｜Assistant｜><think>")) << fields;
    EXPECT_EQ(got.reasoning, "Hm, so.") << fields;
    EXPECT_EQ(got.content, "Yes.") << fields;
  }
}

TEST(ReasoningFields, SwitchThinkingOff) {
  ServiceOptions thinking = parsing_options();
  thinking.default_chat_template_kwargs = {{"thinking", true}};
  for (const ordered_json& fields :
       {ordered_json{{"chat_template_kwargs", {{"thinking", false}}}},
        ordered_json{{"chat_template_kwargs", {{"enable_thinking", false}}}},
        ordered_json{{"thinking", {{"type", "disabled"}}}}, ordered_json{{"reasoning", {{"enabled", false}}}},
        ordered_json{{"reasoning", {{"effort", "none"}}}}, ordered_json{{"reasoning_effort", "none"}},
        ordered_json{{"reasoning_effort", "high"}, {"chat_template_kwargs", {{"thinking", false}}}}}) {
    const Got got = ask(hello(fields), "Yes.", thinking);
    EXPECT_TRUE(got.prompt.ends_with("<｜Assistant｜></think>")) << fields;
    EXPECT_EQ(got.reasoning, "") << fields;
    EXPECT_EQ(got.content, "Yes.") << fields;
  }
  EXPECT_TRUE(ask(hello({}), kAnswer, thinking).prompt.ends_with("<think>")) << "the server's default";
}

TEST(ReasoningFields, HostedNamesSwitchThinking) {
  const auto ends = [](const char* model, bool default_on, std::vector<std::string> others) {
    ServiceOptions options = parsing_options();
    if (default_on)
      options.default_chat_template_kwargs = parse_default_kwargs(R"({"thinking": true})").value();
    ModelCard card = demo_card();
    card.other_names = std::move(others);
    FakeSink sink(says("Yes."));
    Service service(options, card, sink, &demo_tokenizer(), &demo_template());
    service.set_ready();
    const ordered_json body = hello({{"model", model}});
    http::Request request;
    request.method = "POST";
    request.path = "/chat/completions";
    request.body = body.dump();
    FakeWriter writer;
    service.handle(request, writer);
    if (writer.answer.status != 200) return fmt::format("{}", writer.answer.status);
    const std::string prompt = demo_tokenizer().decode(sink.requests().at(0).prompt, false);
    return std::string(prompt.ends_with("<think>") ? "thinks" : "does not");
  };
  EXPECT_EQ(ends("deepseek-reasoner", false, {}), "404");
  EXPECT_EQ(ends("deepseek-reasoner", false, {"deepseek-chat", "deepseek-reasoner"}), "thinks");
  EXPECT_EQ(ends("deepseek-chat", true, {"deepseek-chat", "deepseek-reasoner"}), "does not");
  EXPECT_EQ(ends("demo", true, {"deepseek-chat"}), "thinks");
  EXPECT_EQ(ends("gpt-4o", false, {"*"}), "does not");
  EXPECT_EQ(ends("gpt-4o", false, {"gpt-4"}), "404");
}

TEST(ReasoningFields, ServersDefaultHasEitherName) {
  for (const char* json : {R"({"thinking": true})", R"({"enable_thinking": true})"}) {
    ServiceOptions options = parsing_options();
    options.default_chat_template_kwargs = parse_default_kwargs(json).value();
    EXPECT_TRUE(ask(hello({}), kAnswer, options).prompt.ends_with("<think>")) << json;
    const ordered_json off = {{"chat_template_kwargs", {{"enable_thinking", false}}}};
    EXPECT_TRUE(ask(hello(off), "Yes.", options).prompt.ends_with("</think>")) << json;
  }
  for (const char* wrong : {"thinking", "[]", R"({"messages": []})", ""}) {
    const auto kwargs = parse_default_kwargs(wrong);
    ASSERT_FALSE(kwargs.ok()) << wrong;
    EXPECT_NE(kwargs.error().message.find("--default-chat-template-kwargs"), std::string::npos) << wrong;
  }
}

TEST(ReasoningFields, ShapeTheAnswer) {
  const ordered_json on = {{"thinking", {{"type", "enabled"}}}};
  ordered_json fields = on;
  fields["separate_reasoning"] = false;
  EXPECT_EQ(ask(hello(fields), kAnswer).content, kAnswer);
  EXPECT_EQ(ask(hello(fields), kAnswer).reasoning, "");
  fields["separate_reasoning"] = true;
  fields["stream_reasoning"] = false;
  const Got held = ask(hello(fields), kAnswer);
  EXPECT_EQ(held.reasoning, "Hm, so.");
  EXPECT_EQ(held.reasoning_pieces, 1);
  fields["stream_reasoning"] = true;
  EXPECT_GT(ask(hello(fields), kAnswer).reasoning_pieces, 1);
  EXPECT_EQ(ask(hello(on), "Only thoughts").reasoning, "Only thoughts");
  EXPECT_EQ(ask(hello(on), "Only thoughts").content, "");
}

// Whatever the switch says, the prompt after a tool's result decides.
TEST(ReasoningFields, HoldAfterAToolsResult) {
  const ordered_json messages = {{{"role", "user"}, {"content", "Time?"}},
                                 {{"role", "assistant"},
                                  {"content", nullptr},
                                  {"reasoning_content", "Hm."},
                                  {"tool_calls",
                                   {{{"id", "call_1"},
                                     {"type", "function"},
                                     {"function", {{"name", "get_time"}, {"arguments", "{}"}}}}}}},
                                 {{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", "12:00"}}};
  const ordered_json tools = {
      {{"type", "function"}, {"function", {{"name", "get_time"}, {"parameters", {{"type", "object"}}}}}}};
  for (const bool thinking : {false, true}) {
    const ordered_json body = {{"messages", messages},
                               {"tools", tools},
                               {"thinking", {{"type", thinking ? "enabled" : "disabled"}}}};
    const Got plain = ask(body, "It is noon.");
    EXPECT_EQ(plain.content, "It is noon.") << thinking;
    EXPECT_EQ(plain.reasoning, "") << thinking;
    const Got thought = ask(body, "<think>Noon.</think>It is noon.");
    EXPECT_EQ(thought.content, "It is noon.") << thinking;
    EXPECT_EQ(thought.reasoning, "Noon.") << thinking;
  }
}

TEST(ReasoningFields, RefuseWhatTheyAreNot) {
  Desk desk(says("x"), parsing_options());
  for (const ordered_json& fields :
       {ordered_json{{"thinking", {{"type", "maybe"}}}}, ordered_json{{"thinking", true}},
        ordered_json{{"thinking", ordered_json::object()}}, ordered_json{{"reasoning_effort", "huge"}},
        ordered_json{{"reasoning_effort", 1.5}}, ordered_json{{"separate_reasoning", "no"}},
        ordered_json{{"stream_reasoning", 1}}, ordered_json{{"chat_template_kwargs", true}},
        ordered_json{{"reasoning", {{"enabled", "yes"}}}}, ordered_json{{"reasoning", {{"power", 1}}}}}) {
    desk.json(kChat, hello(fields).dump(), 400);
  }
  EXPECT_TRUE(desk.sink.requests().empty());
}

}  // namespace
}  // namespace fathom::api
