#include "text/encoding/prompt_encoding.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "text/answer/answer_parsers.h"
#include "text/answer/answer_splitter.h"
#include "text/encoding/python_json.h"
#include "text/template/chat_template.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

constexpr size_t kNoLimit = size_t{1} << 30;

Result<std::string> encode(std::string_view encoding, const ordered_json& variables) {
  return encode_prompt(parse_prompt_encoding(encoding).value(), variables, kNoLimit);
}

// Conversations of our own, with the prompts that DeepSeek's published encoders make of them
// (tests/encoding_judge.py); null where they refuse.
TEST(PromptEncoding, WritesWhatThePublishedEncodersWrite) {
  std::ifstream file(FATHOM_SOURCE_DIR "/tests/chat_encodings/cases.json");
  const ordered_json cases = ordered_json::parse(file);
  ASSERT_GT(cases.size(), 80u);
  for (const ordered_json& test : cases) {
    const auto prompt = encode(test["encoding"].get<std::string>(), test["variables"]);
    if (test["prompt"].is_null()) {
      EXPECT_FALSE(prompt.ok()) << test["name"] << " " << *prompt;
    } else {
      ASSERT_TRUE(prompt.ok()) << test["name"] << " " << prompt.error().message;
      EXPECT_EQ(*prompt, test["prompt"].get<std::string>()) << test["encoding"] << ": " << test["name"];
    }
  }
}

TEST(PromptEncoding, NamesTheMessageThatIsWrong) {
  const ordered_json call = {
      {"id", "c"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", "{}"}}}};
  const auto message_of = [](const ordered_json& messages, bool thinking = false) {
    const auto prompt = encode("deepseek-v32", {{"messages", messages}, {"thinking", thinking}});
    return prompt.ok() ? *prompt : prompt.error().message;
  };
  const ordered_json user = {{"role", "user"}, {"content", "Hi"}};
  const ordered_json tool = {{"role", "tool"}, {"content", "x"}};
  EXPECT_EQ(message_of({user, tool}), "messages[1]: a tool's message without a tool call before it");
  const ordered_json caller = {{"role", "assistant"}, {"content", ""}, {"tool_calls", {call, call}}};
  EXPECT_EQ(message_of({user, caller, tool, user}),
            "messages[1]: 2 tool calls need as many tool messages after them, in their order; got 1");
  EXPECT_EQ(message_of({user, caller, tool}),
            "messages[1]: 2 tool calls need as many tool messages after them, in their order; got 1");
  EXPECT_EQ(message_of({user, caller, tool, tool, tool}),
            "messages[4]: a tool's message without a tool call before it");
  EXPECT_EQ(message_of({user, {{"role", "assistant"}, {"content", "x"}}}, true),
            "messages[1]: with thinking on, an assistant's message after the last user's needs "
            "reasoning_content or tool_calls");
  EXPECT_EQ(message_of({{{"role", "narrator"}, {"content", "x"}}}),
            "messages[0]: this model has no role 'narrator'");
  EXPECT_FALSE(encode_prompt(PromptEncoding::kV4, {{"messages", {user}}}, 10).ok());
  const auto task = encode("deepseek-v4", {{"messages", {user}}, {"task", "sing"}});
  EXPECT_EQ(task.error().message,
            "messages[0]: task: got 'sing', expected action, query, authority, domain, title or read_url");
}

// A call cut off by a length limit comes back with the conversation.
TEST(PromptEncoding, V4TakesArgumentsThatAreNoObject) {
  const ordered_json call = {{"id", "c"}, {"function", {{"name", "f"}, {"arguments", "{\"a\": "}}}};
  const ordered_json messages = {{{"role", "user"}, {"content", "Go"}},
                                 {{"role", "assistant"}, {"content", ""}, {"tool_calls", {call}}}};
  const std::string prompt = encode("deepseek-v4", {{"messages", messages}}).value();
  EXPECT_NE(prompt.find("<｜DSML｜parameter name=\"arguments\" string=\"true\">{\"a\": </｜DSML｜parameter>"),
            std::string::npos);
  EXPECT_EQ(encode("deepseek-v32", {{"messages", messages}}).error().message,
            "messages[1]: function.arguments of a tool call must be a JSON object");
}

TEST(PromptEncoding, KnowsV4sEfforts) {
  const auto begin_of = [](std::string_view encoding, const ordered_json& effort, bool thinking = true) {
    const auto prompt = encode(encoding, {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                                          {"thinking", thinking},
                                          {"reasoning_effort", effort}});
    const std::string text = prompt.value().substr(std::string_view("<｜begin▁of▁sentence｜>").size());
    return text.substr(0, text.find_first_of(".—<"));
  };
  const std::string thorough = "Reasoning Effort: Absolute maximum with no shortcuts permitted";
  for (const char* effort : {"low", "minimal", "medium", "high"}) {
    EXPECT_EQ(begin_of("deepseek-v4-preview", effort), "") << effort;
  }
  EXPECT_EQ(begin_of("deepseek-v4-preview", "max"), thorough);
  EXPECT_EQ(begin_of("deepseek-v4", nullptr), "");
  EXPECT_EQ(begin_of("deepseek-v4", "low"), "");
  EXPECT_EQ(begin_of("deepseek-v4", "high"), thorough);
  EXPECT_EQ(begin_of("deepseek-v4", 0.5), thorough);
  EXPECT_EQ(begin_of("deepseek-v4", "max"), "Reasoning Effort: Beyond maximum ");
  EXPECT_EQ(begin_of("deepseek-v4", 0.99), "Reasoning Effort: Beyond maximum ");
  EXPECT_EQ(begin_of("deepseek-v4", "max", false), "");
}

TEST(PromptEncoding, IsChosenByTheCheckpoint) {
  EXPECT_EQ(find_prompt_encoding("DeepseekV32ForCausalLM", ""), PromptEncoding::kV32);
  EXPECT_EQ(find_prompt_encoding("DeepseekV4ForCausalLM", ""), PromptEncoding::kV4Preview);
  EXPECT_EQ(find_prompt_encoding("DeepseekV4ForCausalLM", "REASONING_EFFORT_MAX = ("),
            PromptEncoding::kV4Preview);
  EXPECT_EQ(find_prompt_encoding("DeepseekV4ForCausalLM", "REASONING_EFFORT_PROMPTS = {"),
            PromptEncoding::kV4);
  EXPECT_EQ(find_prompt_encoding("DeepseekV3ForCausalLM", ""), std::nullopt);
  const ChatTemplate v32(PromptEncoding::kV32);
  EXPECT_EQ(choose_parsers("auto", "auto", &v32, "").value().tools_name, "deepseekv32");
  EXPECT_EQ(choose_parsers("auto", "auto", &v32, "").value().reasoning_name, "deepseek-v3");
  const ChatTemplate v4(PromptEncoding::kV4);
  EXPECT_EQ(choose_parsers("auto", "auto", &v4, "").value().tools_name, "deepseekv4");
  EXPECT_EQ(choose_parsers("auto", "auto", &v4, "").value().reasoning_name, "deepseek-v4");
}

// What an assistant said, encoded and then read as if the model had just written it.
TEST(PromptEncoding, IsReadBackByTheAnswersParsers) {
  const std::vector<std::pair<std::string, std::string>> calls = {
      {"query_weather", R"({"city": "Köln \"Süd\"\n", "days": 2})"},
      {"add", R"({"a": 1.5, "big": 123456789012345678901234567890, "l": [1, {"k": null}], "t": true})"},
      {"nothing", "{}"}};
  ordered_json tool_calls = ordered_json::array();
  for (const auto& [name, arguments] : calls) {
    tool_calls.push_back({{"id", "call_" + name}, {"function", {{"name", name}, {"arguments", arguments}}}});
  }
  for (const char* encoding : {"deepseek-v32", "deepseek-v4"}) {
    const ChatTemplate chat_template(parse_prompt_encoding(encoding).value());
    ordered_json messages = {{{"role", "user"}, {"content", "Go"}}};
    const std::string before = chat_template.render({{"messages", messages}, {"thinking", true}}).value();
    messages.push_back({{"role", "assistant"},
                        {"content", "Both at once."},
                        {"reasoning_content", "They ask\nfor two."},
                        {"tool_calls", tool_calls}});
    const std::string whole = chat_template.render({{"messages", messages}, {"thinking", true}}).value();
    ASSERT_TRUE(whole.starts_with(before));
    std::string answer = whole.substr(before.size());
    ASSERT_TRUE(answer.ends_with("<｜end▁of▁sentence｜>"));
    answer.erase(answer.size() - std::string_view("<｜end▁of▁sentence｜>").size());

    AnswerFormat format;
    format.start = ReasoningStart::kThinking;
    format.tools = choose_parsers("auto", "auto", &chat_template, "").value().tools;
    for (const size_t step : {size_t{1}, size_t{7}, answer.size()}) {
      AnswerSplitter splitter(format);
      std::vector<OutputPiece> pieces;
      for (size_t at = 0; at < answer.size(); at += step) splitter.push(answer.substr(at, step), &pieces);
      splitter.finish(&pieces);
      std::string reasoning;
      std::string content;
      std::vector<std::pair<std::string, std::string>> read;
      for (const OutputPiece& piece : pieces) {
        if (piece.kind == OutputPiece::Kind::kReasoning) reasoning += piece.text;
        if (piece.kind == OutputPiece::Kind::kContent) content += piece.text;
        if (piece.kind == OutputPiece::Kind::kCall) read.emplace_back(piece.text, "");
        if (piece.kind == OutputPiece::Kind::kArguments) read.back().second += piece.text;
      }
      EXPECT_EQ(reasoning, "They ask\nfor two.");
      EXPECT_EQ(content, "Both at once.");
      ASSERT_EQ(read.size(), calls.size());
      for (size_t i = 0; i < calls.size(); ++i) {
        EXPECT_EQ(read[i].first, calls[i].first);
        EXPECT_EQ(ordered_json::parse(read[i].second), ordered_json::parse(calls[i].second));
        EXPECT_EQ(read[i].second.find("123456789012345678901234567890") != std::string::npos,
                  calls[i].second.find("123456789012345678901234567890") != std::string::npos);
      }
    }
  }
}

TEST(PythonJson, WritesAsPythonDoes) {
  const ordered_json value = ordered_json::parse(
      R"({"a":[1,-0.0,1e22,1e-7,100000.0,true,null,{},[]],"ü":"\u0001\u007f\n\"\\🙂/","big":18446744073709551615})");
  EXPECT_EQ(python_json(value),
            "{\"a\": [1, -0.0, 1e+22, 1e-07, 100000.0, true, null, {}, []], "
            "\"ü\": \"\\u0001\x7f\\n\\\"\\\\🙂/\", \"big\": 18446744073709551615}");
}

TEST(PythonJson, ReadsAnObjectsFields) {
  const auto fields = read_json_fields(R"({"a": "x\"y", "b": [1,2], "a": 30000000000000000000000})");
  ASSERT_TRUE(fields.has_value());
  ASSERT_EQ(fields->size(), 2u);
  EXPECT_EQ((*fields)[0].key, "a");
  EXPECT_FALSE((*fields)[0].is_string);
  EXPECT_EQ((*fields)[0].text, "30000000000000000000000");
  EXPECT_EQ((*fields)[1].text, "[1, 2]");
  for (const char* wrong : {"[1]", "1", "\"a\"", "null", "{", "", "{}x", "{\"a\": 1e999}"}) {
    EXPECT_FALSE(read_json_fields(wrong).has_value()) << wrong;
  }
}

}  // namespace
}  // namespace fathom::text
