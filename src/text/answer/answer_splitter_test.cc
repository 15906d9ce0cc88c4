// Whole answers: what becomes of each part, and that the cuts make no difference.
#include "text/answer/answer_splitter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "text/answer/answer_parsers.h"
#include "text/answer/answer_testing.h"
#include "text/template/chat_template.h"

namespace fathom::text {
namespace {

std::string parse(const AnswerFormat& format, std::string_view text) {
  return show(split_answer(format, text, {}));
}

constexpr AnswerFormat kThinks{.start = ReasoningStart::kThinking};

TEST(AnswerSplitter, TellsReasoningFromContent) {
  EXPECT_EQ(parse(kThinks, "so</think>\n\nYes"), "reasoning: so\ncontent: \n\nYes\n");
  EXPECT_EQ(parse(kThinks, "<think>so</think>Yes"), "reasoning: so\ncontent: Yes\n");
  EXPECT_EQ(parse(kThinks, "\n<think><think>\nso"), "reasoning: \nso\n");
  EXPECT_EQ(parse(kThinks, "never ends </thi"), "reasoning: never ends </thi\n");
  EXPECT_EQ(parse(kThinks, "a</think>b</think>c"), "reasoning: a\ncontent: b</think>c\n");
  EXPECT_EQ(parse({.start = ReasoningStart::kDetect}, "<think>so</think>Yes"),
            "reasoning: so\ncontent: Yes\n");
  EXPECT_EQ(parse({.start = ReasoningStart::kDetect}, " <b>Yes"), "content:  <b>Yes\n");
  EXPECT_EQ(parse({}, "<think>Yes"), "content: <think>Yes\n");
  EXPECT_EQ(parse({.start = ReasoningStart::kThinking, .separate_reasoning = false}, "<think>so</think>Yes"),
            "content: <think>so</think>Yes\n");
}

TEST(AnswerSplitter, WithoutStreamingTheThoughtsComeAtOnce) {
  AnswerSplitter splitter({.start = ReasoningStart::kThinking, .stream_reasoning = false});
  std::vector<OutputPiece> pieces;
  splitter.push("one ", &pieces);
  splitter.push("two", &pieces);
  EXPECT_TRUE(pieces.empty());
  splitter.push("</think>", &pieces);
  EXPECT_EQ(show(pieces), "reasoning: one two\n");
}

TEST(AnswerSplitter, ReadsV3Calls) {
  const AnswerFormat format{.tools = ToolFormat::kV3};
  EXPECT_EQ(
      parse(
          format,
          "Let me see.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n"
          "{\"city\": "
          "\"Rome\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
          "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
      "content: Let me see.\ncall: get_time\narguments: {\"city\": \"Rome\"}\ncall: f\narguments: {}\n");
  // Broken off: nothing is made up.
  EXPECT_EQ(
      parse(format, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": "),
      "call: f\narguments: {\"a\":\n");
  EXPECT_EQ(parse(format, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>odd"),
            "content: <｜tool▁call▁begin｜>odd\n");
  // Without the block, without arguments, with text after.
  EXPECT_EQ(parse(format, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n<｜tool▁call▁end｜>\nDone. "),
            "call: f\narguments: {}\ncontent: Done. \n");
}

TEST(AnswerSplitter, ReadsV31Calls) {
  EXPECT_EQ(
      parse({.tools = ToolFormat::kV31},
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{\"city\": "
            "\"Rome\"}<｜tool▁call▁end｜>"
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{\"x\": [1]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
      "call: get_time\narguments: {\"city\": \"Rome\"}\ncall: function\narguments: {\"x\": [1]}\n");
}

TEST(AnswerSplitter, ReadsDsmlCalls) {
  EXPECT_EQ(
      parse({.tools = ToolFormat::kV32},
            "Hm.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n"
            "<｜DSML｜parameter name=\"code\" string=\"true\"> a\n\"b\"</｜DSML｜parameter>\n"
            "<｜DSML｜parameter name=\"n\" string=\"false\"> [1, 2] </｜DSML｜parameter>\n"
            "<｜DSML｜parameter name=\"bad\" string=\"false\">so</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
            "<｜DSML｜invoke name=\"g\"/>\n<｜DSML｜invoke name=\"h\">\n{\"raw\": 1}\n</｜DSML｜invoke>\n"
            "</｜DSML｜function_calls>"),
      "content: Hm.\ncall: f\narguments: {\"code\": \" a\\n\\\"b\\\"\", \"n\": [1, 2], \"bad\": \"so\"}\n"
      "call: g\narguments: {}\ncall: h\narguments: {\"raw\": 1}\n");
  EXPECT_EQ(
      parse({.tools = ToolFormat::kV4}, "<｜DSML｜tool_calls><｜DSML｜invoke name=\"g\"></｜DSML｜invoke>"),
      "call: g\narguments: {}\n");
}

TEST(AnswerSplitter, TellsWhereInACallTheTextEnds) {
  using Within = ToolSplitter::Within;
  const auto within = [](ToolFormat format, std::string_view text) {
    AnswerSplitter splitter({.tools = format});
    std::vector<OutputPiece> pieces;
    splitter.push(text, &pieces);
    const Within found = splitter.within();
    splitter.finish(&pieces);
    EXPECT_EQ(splitter.within(), found) << text;
    return found;
  };
  const std::string marked = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>";
  EXPECT_EQ(within(ToolFormat::kV3, "Hi <｜tool"), Within::kNothing);
  EXPECT_EQ(within(ToolFormat::kV3, marked + "func"), Within::kHeader);
  EXPECT_EQ(within(ToolFormat::kV3, marked + "function<｜tool▁sep｜>get_"), Within::kHeader);
  EXPECT_EQ(within(ToolFormat::kV3, marked + "function<｜tool▁sep｜>get_time\n```json\n{"),
            Within::kArguments);
  EXPECT_EQ(within(ToolFormat::kV31, marked + "f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"), Within::kNothing);
  const std::string dsml = "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\"";
  EXPECT_EQ(within(ToolFormat::kV32, dsml), Within::kHeader);
  EXPECT_EQ(within(ToolFormat::kV32, dsml + ">\n<｜DSML｜parameter name=\"a\" string=\"true\">b"),
            Within::kArguments);
  EXPECT_EQ(within(ToolFormat::kV32, dsml + ">\n</｜DSML｜invoke>"), Within::kNothing);
  EXPECT_EQ(within(ToolFormat::kNone, marked), Within::kNothing);
}

TEST(AnswerSplitter, ACallEndsTheThoughts) {
  EXPECT_EQ(
      parse({.start = ReasoningStart::kThinking, .tools = ToolFormat::kV31},
            "I need it.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"),
      "reasoning: I need it.\ncall: f\narguments: {}\n");
}

AnswerFormat random_format(std::mt19937_64& random) {
  AnswerFormat format;
  format.start = static_cast<ReasoningStart>(random() % 3);
  format.separate_reasoning = random() % 4 != 0;
  format.stream_reasoning = random() % 4 != 0;
  format.tools = static_cast<ToolFormat>(random() % 5);
  return format;
}

TEST(AnswerSplitter, TheCutsMakeNoDifference) {
  std::mt19937_64 random(20261126);
  const auto& fragments = answer_fragments();
  for (int round = 0; round < 60000; ++round) {
    const AnswerFormat format = random_format(random);
    std::string text;
    for (auto n = random() % 24; n > 0; --n) text += fragments[random() % fragments.size()];
    const std::string whole = parse(format, text);
    std::vector<size_t> cuts;
    const auto every = 1 + random() % 12;
    for (size_t i = 1; i < text.size(); ++i) {
      if (random() % every == 0) cuts.push_back(i);
    }
    ASSERT_EQ(show(split_answer(format, text, cuts)), whole) << "round " << round << "\n" << text;
  }
}

// Well-formed answers come back as what they were made of, however they are cut.
TEST(AnswerSplitter, CallsSurviveEveryCut) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 4000; ++round) {
    const auto format = static_cast<ToolFormat>(1 + random() % 4);
    const bool dsml = format == ToolFormat::kV32 || format == ToolFormat::kV4;
    const std::string block = format == ToolFormat::kV4 ? "tool_calls" : "function_calls";
    std::string expected = "reasoning: hm\ncontent: text\n";
    std::string text =
        "hm</think>text" + std::string(dsml ? "\n\n<｜DSML｜" + block + ">\n" : "<｜tool▁calls▁begin｜>");
    for (auto n = 1 + random() % 3; n > 0; --n) {
      const std::string value = answer_fragments()[random() % 3 == 0 ? 23 : 22];
      const nlohmann::ordered_json arguments = {{"a", value}, {"b", random() % 100}};
      const std::string name = "tool_" + std::to_string(random() % 5);
      expected += "call: " + name + "\narguments: ";
      if (dsml) {
        expected += "{\"a\": " + arguments["a"].dump() + ", \"b\": " + arguments["b"].dump() + "}\n";
        text += "<｜DSML｜invoke name=\"" + name + "\">\n<｜DSML｜parameter name=\"a\" string=\"true\">" +
                value + "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" string=\"false\">" +
                arguments["b"].dump() + "</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
      } else {
        expected += arguments.dump() + "\n";
        text += format == ToolFormat::kV3
                    ? "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n" +
                          arguments.dump() + "\n```<｜tool▁call▁end｜>\n"
                    : "<｜tool▁call▁begin｜>" + name + "<｜tool▁sep｜>" + arguments.dump() +
                          "<｜tool▁call▁end｜>";
      }
    }
    text += dsml ? "</｜DSML｜" + block + ">" : "<｜tool▁calls▁end｜>";
    std::vector<size_t> cuts;
    for (size_t i = 1; i < text.size(); ++i) {
      if (random() % 5 == 0) cuts.push_back(i);
    }
    const AnswerFormat answer{.start = ReasoningStart::kThinking, .tools = format};
    ASSERT_EQ(show(split_answer(answer, text, cuts)), expected) << text;
  }
}

// The text is looked at once, whole or in pieces: once for each piece or marker would take minutes a case.
TEST(AnswerSplitter, TakesAsLongAsTheTextIsLong) {
  constexpr size_t kMany = 100'000;
  const auto v3 = ToolFormat::kV3;
  const auto dsml = ToolFormat::kV32;
  const std::string call = "<｜tool▁call▁begin｜>";
  const std::string invoke = "<｜DSML｜function_calls><｜DSML｜invoke name=\"f\">";
  struct Case {
    ToolFormat tools;
    std::string begin;
    std::string_view many;
  };
  const Case cases[] = {
      {v3, "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"},
      {v3, "", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>\n"},
      {v3, "", "          "},
      {v3, "", "<｜tool▁<｜tool▁"},
      {v3, call, "header<"},
      {v3, call + "function<｜tool▁sep｜>", "long name"},
      {v3, call + "f<｜tool▁sep｜>```", "long fence"},
      {v3, call + "f<｜tool▁sep｜>{", "   ```   "},
      {dsml, invoke, "<a"},
      {dsml, invoke, "<｜DSML｜parameter name=\"a\">1</｜DSML｜parameter>"},
      {dsml, invoke.substr(0, invoke.size() - 1), "attribute "},
      {dsml, invoke + "<｜DSML｜parameter string=\"false\" ", "attribute "},
      {dsml, invoke + "<｜DSML｜parameter string=\"false\">", "<value>"},
      {dsml, invoke + "{", "          "},
      {ToolFormat::kNone, "", "<think>"},
      {ToolFormat::kNone, "", "          "},
  };
  for (const Case& one : cases) {
    std::string text = one.begin;
    for (size_t i = 0; i < kMany; ++i) text += one.many;
    const AnswerFormat format{.start = ReasoningStart::kDetect, .tools = one.tools};
    std::vector<size_t> cuts;
    for (size_t i = 7; i < text.size(); i += 7) cuts.push_back(i);
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(show(split_answer(format, text, cuts)), parse(format, text)) << one.begin << one.many;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    ASSERT_LT(took.count(), 10) << one.begin << one.many;
  }
}

TEST(ReasoningStart, FollowsWhatThePromptSays) {
  const auto forced = ReasoningStyle::kForced;
  const auto switched = ReasoningStyle::kSwitched;
  EXPECT_EQ(reasoning_start(switched, "x<｜Assistant｜><think>", false), ReasoningStart::kThinking);
  EXPECT_EQ(reasoning_start(switched, "x<｜Assistant｜></think>", false), ReasoningStart::kContent);
  EXPECT_EQ(reasoning_start(switched, "x<｜Assistant｜>", false), ReasoningStart::kDetect);
  EXPECT_EQ(reasoning_start(forced, "x<｜Assistant｜><think>\n", false), ReasoningStart::kThinking);
  EXPECT_EQ(reasoning_start(forced, "x<｜Assistant｜>", false), ReasoningStart::kThinking);
  EXPECT_EQ(reasoning_start(forced, "x<｜Assistant｜></think>", false), ReasoningStart::kContent);
  EXPECT_EQ(reasoning_start(forced, "<｜Assistant｜>x<｜tool▁outputs▁end｜>", false),
            ReasoningStart::kDetect);
  EXPECT_EQ(reasoning_start(switched, "</think>x<｜Assistant｜><think>so", true), ReasoningStart::kThinking);
  EXPECT_EQ(reasoning_start(switched, "<｜Assistant｜><think>so</think>Ye", true), ReasoningStart::kContent);
  EXPECT_EQ(reasoning_start(forced, "<｜Assistant｜>Ye", true), ReasoningStart::kContent);
  EXPECT_EQ(reasoning_start(ReasoningStyle::kNone, "<｜Assistant｜><think>", false),
            ReasoningStart::kContent);
}

std::string chosen(const std::string& source, const char* architecture = "DeepseekV3ForCausalLM") {
  const ChatTemplate chat_template = ChatTemplate::parse(source).value();
  const AnswerParsers parsers = choose_parsers("auto", "auto", &chat_template, architecture).value();
  return parsers.reasoning_name + " " + parsers.tools_name;
}

TEST(AnswerParsers, AreFoundOutFromTheTemplate) {
  EXPECT_EQ(chosen("{{ messages[0].content }}"), " ");
  EXPECT_EQ(chosen("{{ messages[0].content }}<｜Assistant｜><think>\n"), "deepseek-r1 ");
  EXPECT_EQ(chosen("<｜Assistant｜>{% if thinking %}<think>{% else %}</think>{% endif %}"
                   "{% for c in x or [] %}<｜tool▁call▁begin｜>{{ c }}<｜tool▁sep｜>{% endfor %}"),
            "deepseek-v3 deepseekv31");
  EXPECT_EQ(
      chosen("{% set c = c.split('</think>') if c else 1 %}function<｜tool▁sep｜><｜tool▁call▁begin｜>"),
      "deepseek-r1 deepseekv3");
  EXPECT_EQ(chosen("<｜DSML｜tool_calls>"), " deepseekv4");
  EXPECT_EQ(choose_parsers("auto", "auto", nullptr, "DeepseekV32ForCausalLM")->tools, ToolFormat::kV32);
  EXPECT_FALSE(choose_parsers("qwen3", "auto", nullptr, "").ok());
  EXPECT_FALSE(choose_parsers("none", "hermes", nullptr, "").ok());
}

}  // namespace
}  // namespace fathom::text
