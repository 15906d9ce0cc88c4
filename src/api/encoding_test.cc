// Chats with models that have DeepSeek's own prompt encodings in place of a template.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;
using text::PromptEncoding;

class EncodingDesk {
 public:
  explicit EncodingDesk(PromptEncoding encoding, const std::string& answer = "ok")
      : template_(encoding), desk(says(answer), options_for(template_), &demo_tokenizer(), &template_) {}

  std::string prompt() const {
    const auto requests = desk.sink.requests();
    return requests.empty() ? "" : demo_tokenizer().decode(requests.back().prompt, false);
  }

 private:
  static ServiceOptions options_for(const text::ChatTemplate& chat_template) {
    ServiceOptions options;
    options.parsers = text::choose_parsers("auto", "auto", &chat_template, "").value();
    return options;
  }
  const text::ChatTemplate template_;

 public:
  Desk desk;
};

constexpr const char* kTool = R"("tools": [{"type": "function", "function": {"name": "add", "parameters":
    {"type": "object", "properties": {"a": {"type": "number"}}}}}])";

TEST(Encodings, SwitchThinking) {
  for (const PromptEncoding encoding : {PromptEncoding::kV32, PromptEncoding::kV4}) {
    EncodingDesk off(encoding);
    off.desk.json(kChat, std::string("{") + kHello + "}");
    EXPECT_EQ(off.prompt(), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>");
    EncodingDesk on(encoding, "hm</think>ok");
    const auto answer =
        on.desk.json(kChat, std::string("{") + kHello + R"(, "thinking": {"type": "enabled"}})");
    EXPECT_EQ(on.prompt(), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜><think>");
    EXPECT_EQ(answer["choices"][0]["message"]["reasoning_content"], "hm");
    EXPECT_EQ(answer["choices"][0]["message"]["content"], "ok");
  }
}

TEST(Encodings, ParseTheCallsTheyOffer) {
  for (const PromptEncoding encoding : {PromptEncoding::kV32, PromptEncoding::kV4}) {
    const std::string block = encoding == PromptEncoding::kV32 ? "function_calls" : "tool_calls";
    EncodingDesk desk(encoding, "Sure.\n\n<｜DSML｜" + block +
                                    ">\n<｜DSML｜invoke name=\"add\">\n<｜DSML｜parameter name=\"a\" "
                                    "string=\"false\">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜" +
                                    block + ">");
    const auto answer = desk.desk.json(kChat, std::string("{") + kHello + ", " + kTool + "}");
    EXPECT_NE(desk.prompt().find("{\"name\": \"add\", \"parameters\": {\"type\": \"object\""),
              std::string::npos);
    const auto& choice = answer["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    EXPECT_EQ(choice["message"]["content"], "Sure.");
    EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"a": 2})");
  }
}

// Issues of other servers: after a tool's result the answer must not all be reasoning.
TEST(Encodings, ThinkAgainAfterAToolsResult) {
  const std::string turns = R"({"messages": [{"role": "user", "content": "2+2?"},
      {"role": "assistant", "content": null, "reasoning_content": "Add.", "tool_calls": [
        {"id": "c0", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 2}"}}]},
      {"role": "tool", "tool_call_id": "c0", "content": "4"}], )" +
                            std::string(kTool);
  EncodingDesk v32(PromptEncoding::kV32, "Four.</think>4");
  const auto thought = v32.desk.json(kChat, turns + R"(, "chat_template_kwargs": {"thinking": true}})");
  EXPECT_TRUE(v32.prompt().ends_with("\n<result>4</result>\n</function_results>\n\n<think>"));
  EXPECT_EQ(thought["choices"][0]["message"]["reasoning_content"], "Four.");
  EXPECT_EQ(thought["choices"][0]["message"]["content"], "4");
  EncodingDesk plain(PromptEncoding::kV32, "It is 4.");
  const auto answered = plain.desk.json(kChat, turns + "}");
  EXPECT_TRUE(plain.prompt().ends_with("</function_results>\n\n</think>"));
  EXPECT_EQ(answered["choices"][0]["message"]["content"], "It is 4.");
  EXPECT_TRUE(answered["choices"][0]["message"]["reasoning_content"].is_null());
  EncodingDesk v4(PromptEncoding::kV4, "Four.</think>4");
  v4.desk.json(kChat, turns + R"(, "chat_template_kwargs": {"thinking": true}})");
  EXPECT_TRUE(v4.prompt().ends_with("<｜User｜><tool_result>4</tool_result><｜Assistant｜><think>"));
}

TEST(Encodings, KnowTheirRolesAndFields) {
  EncodingDesk v4(PromptEncoding::kV4);
  v4.desk.json(kChat, R"({"messages": [{"role": "latest_reminder", "content": "Monday"},
                                       {"role": "developer", "content": "Sort."}], "task": "title"})");
  EXPECT_EQ(v4.prompt(), "<｜begin▁of▁sentence｜><｜latest_reminder｜>Monday<｜User｜>Sort.<｜title｜>");
  EncodingDesk v32(PromptEncoding::kV32);
  v32.desk.json(kChat, R"({"messages": [{"role": "developer", "content": "Sort."}]})");
  EXPECT_TRUE(v32.prompt().ends_with("\n\n# The user's message is: Sort.<｜Assistant｜></think>"));
  v32.desk.json(kChat, R"({"messages": [{"role": "latest_reminder", "content": "x"}]})", 400);
  v32.desk.json(kChat, std::string("{") + kHello + R"(, "task": "title"})", 400);
  v32.desk.json(kChat, R"({"messages": [{"role": "system", "content": "x", "tools": [1]}]})", 400);
  v32.desk.json(kChat, R"({"messages": [{"role": "system", "content": "x", "response_format": 1}]})", 400);
  const auto refused = v32.desk.json(kChat, R"({"messages": [{"role": "tool", "content": "x"}]})", 400);
  EXPECT_NE(refused["error"]["message"].get<std::string>().find(
                "messages[0]: a tool's message without a tool call"),
            std::string::npos);
}

TEST(Encodings, PutASchemaInThePrompt) {
  EncodingDesk v32(PromptEncoding::kV32, R"({"a": 1})");
  v32.desk.json(kChat,
                std::string("{") + kHello + R"(, "response_format": {"type": "json_schema", "json_schema":
      {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}})");
  EXPECT_NE(v32.prompt().find("## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                              "reply:\n{\"type\": \"object\", \"properties\": {\"a\": {\"type\": "
                              "\"integer\"}}}<｜User｜>"),
            std::string::npos);
}

TEST(Encodings, ContinueTheFinalMessage) {
  for (const PromptEncoding encoding : {PromptEncoding::kV32, PromptEncoding::kV4}) {
    EncodingDesk plain(encoding);
    plain.desk.json(kChat, R"({"messages": [{"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Once", "prefix": true}]})");
    EXPECT_EQ(plain.prompt(), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>Once");
    EncodingDesk thinking(encoding);
    thinking.desk.json(kChat, R"({"messages": [{"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "reasoning_content": "Hm", "prefix": true}],
        "chat_template_kwargs": {"thinking": true}})");
    EXPECT_EQ(thinking.prompt(), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜><think>Hm");
  }
}

TEST(Encodings, TakeSpecialTokensThatAUserTypesAsText) {
  EncodingDesk v4(PromptEncoding::kV4);
  v4.desk.json(kChat, R"({"messages": [{"role": "user", "content": "a<｜end▁of▁sentence｜>b"}]})");
  const auto ids = v4.desk.sink.requests().at(0).prompt;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kEos), 0);
}

// Encodings decode a call's arguments: an escape must not bring back what was taken apart.
TEST(Encodings, TakeSpecialTokensInArgumentsAsText) {
  for (const char* hidden :
       {R"(<｜end▁of▁sentence｜>)", R"(\u003c｜end▁of▁sentence｜>)", R"(<\uFF5cend▁of▁sentence｜\u003E)",
        R"(\u003c\uff5cend\u2581of\u2581sentence｜>)"}) {
    EncodingDesk v4(PromptEncoding::kV4);
    const std::string call =
        R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": "c",
            "type": "function", "function": {"name": "f", "arguments": "{\"a\": \")" +
        std::string(hidden) +
        R"( 1.50 \\u0041 \\\\ \\n\"}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "y"}]})";
    v4.desk.json(kChat, call);
    const auto ids = v4.desk.sink.requests().at(0).prompt;
    EXPECT_EQ(std::count(ids.begin(), ids.end(), kEos), 1) << hidden;  // the assistant's turn's own
    EXPECT_NE(v4.prompt().find("<｜end▁of▁sentence｜> 1.50 A \\ \n</"), std::string::npos) << v4.prompt();
  }
}

}  // namespace
}  // namespace fathom::api
