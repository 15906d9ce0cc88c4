#include "text/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/detokenizer.h"
#include "text/tokenizer/random_text.h"

namespace fathom::text {
namespace {

const Tokenizer& demo() {
  static const auto tokenizer = Tokenizer::load(FATHOM_SOURCE_DIR "/models/demo");
  return **tokenizer;
}

// A tokenizer of the 256 bytes and two merges, to be changed by each test.
nlohmann::json small_json() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[byte_level_encode({&c, 1})] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {{"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

nlohmann::json added(int id, const char* content, bool special) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
}

std::string load_error(const nlohmann::json& json, const nlohmann::json& config = nlohmann::json::object()) {
  const auto result = Tokenizer::from_json(json.dump(), config.dump());
  return result.ok() ? "no error" : result.error().message;
}

using Ids = std::vector<int32_t>;

TEST(Tokenizer, DemoModel) {
  const Tokenizer& t = demo();
  EXPECT_EQ(t.vocab_size(), 3045);
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_TRUE(t.add_bos_token());
  EXPECT_EQ(t.bos_token(), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(t.token_to_id("<｜User｜>"), 3028);
  EXPECT_EQ(t.token_to_id("Ġthe").has_value(), true);
  EXPECT_EQ(t.token_bytes(*t.token_to_id("Ġthe")), " the");
  EXPECT_EQ(t.token_to_id("no such token"), std::nullopt);
  EXPECT_TRUE(t.is_special(0));
  EXPECT_FALSE(t.is_special(3028));
  EXPECT_FALSE(t.is_special(-1));
  EXPECT_FALSE(t.is_special(1 << 30));
  EXPECT_EQ(t.token_bytes(1 << 30), "");
  EXPECT_EQ(t.token_bytes(-1), "");
  EXPECT_NE(t.chat_template().find("add_generation_prompt"), std::string::npos);

  const Ids plain = t.encode("Hi", false);
  Ids with_bos = {0};
  with_bos.insert(with_bos.end(), plain.begin(), plain.end());
  EXPECT_EQ(t.encode("Hi", true), with_bos);
  EXPECT_EQ(t.encode("", true), Ids{0});
  EXPECT_EQ(t.encode("", false), Ids{});

  const Ids chat = t.encode("<｜User｜>Hi<｜Assistant｜></think>", false);
  EXPECT_EQ(chat.front(), 3028);
  EXPECT_EQ(chat[chat.size() - 2], 3029);
  EXPECT_EQ(chat.back(), 3040);
  EXPECT_EQ(t.decode(chat, true), "<｜User｜>Hi<｜Assistant｜></think>");
  EXPECT_EQ(t.decode(with_bos, true), "Hi");
  EXPECT_EQ(t.decode(with_bos, false), "<｜begin▁of▁sentence｜>Hi");
}

TEST(Tokenizer, TextComesBackFromItsIds) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(random, random() % 200);
    ASSERT_EQ(demo().decode(demo().encode(text, false), false), text);
  }
}

TEST(Tokenizer, BytesThatAreNotUtf8CountAsReplacementCharacters) {
  EXPECT_EQ(demo().encode("a\xFF\xE4\xBD z", false), demo().encode("a\uFFFD\uFFFD z", false));
  std::mt19937_64 random(12);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes(random() % 60, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    ASSERT_EQ(demo().decode(demo().encode(bytes, false), false), repair_utf8(bytes));
  }
}

TEST(Tokenizer, ALongRunOfOneLetterIsBounded) {
  for (const std::string unit : {"a", " ", "中", "<", "\n"}) {
    std::string text;
    while (text.size() < 1000000) text += unit;
    EXPECT_EQ(demo().decode(demo().encode(text, false), false), text);
  }
}

TEST(Tokenizer, ManyThreadsGiveTheSameIds) {
  std::mt19937_64 random(13);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 300; ++i) {
    texts.push_back(random_text(random, 100));
    expected.push_back(demo().encode(texts.back(), true));
  }
  const auto small = Tokenizer::from_json(small_json().dump());
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t thread = 0; thread < wrong.size(); ++thread) {
    threads.emplace_back([&, thread] {
      for (size_t i = 0; i < texts.size(); ++i) {
        wrong[thread] += demo().encode(texts[i], true) != expected[i];
        // Another tokenizer on the same thread must not see the first one's words.
        if (i % 50 == 0) wrong[thread] += (*small)->encode("abcd", false) != Ids{257, 'd'};
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, AddedTokensOfBothKinds) {
  auto json = small_json();
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = nlohmann::json::array({added(300, "A\u030A", false), added(301, "<s>", true)});
  const std::string decomposed = "xA\u030A<s>";
  const std::string composed = "x\u00C5<s>";
  auto tokenizer = Tokenizer::from_json(json.dump());
  EXPECT_EQ((*tokenizer)->encode(decomposed, false), (Ids{'x', 300, 301}));
  EXPECT_EQ((*tokenizer)->encode(composed, false), (Ids{'x', 0xC3, 0x85, 301}));
  json["added_tokens"][0]["normalized"] = true;
  tokenizer = Tokenizer::from_json(json.dump());
  EXPECT_EQ((*tokenizer)->encode(decomposed, false), (Ids{'x', 300, 301}));
  EXPECT_EQ((*tokenizer)->encode(composed, false), (Ids{'x', 300, 301}));
  EXPECT_EQ((*tokenizer)->decode(Ids{'x', 300, 301}, false), decomposed);
  EXPECT_EQ((*tokenizer)->vocab_size(), 302);
  EXPECT_EQ((*tokenizer)->decode(Ids{290, 'y'}, false), "y");  // 290 has no token
}

TEST(Tokenizer, PostProcessorAndSentenceTokens) {
  auto json = small_json();
  json["added_tokens"] = nlohmann::json::array({added(300, "<s>", true), added(301, "</s>", true)});
  const auto special = [](const char* name) -> nlohmann::json {
    return {{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {special("<s>"), {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, special("</s>")}},
         {"special_tokens", {{"<s>", {{"ids", {300}}}}, {"</s>", {{"ids", {301}}}}}}}}}};
  const auto ids = [&](const nlohmann::json& config) {
    const auto tokenizer = Tokenizer::from_json(json.dump(), config.dump());
    EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.error().message);
    return tokenizer.ok() ? (*tokenizer)->encode("c", true) : Ids{};
  };
  const nlohmann::json names = {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}};
  auto config = names;
  EXPECT_EQ(ids(config), (Ids{300, 'c', 301}));
  config["tokenizer_class"] = "LlamaTokenizerFast";
  EXPECT_EQ(ids(config), (Ids{300, 'c'}));
  config["add_bos_token"] = false;
  EXPECT_EQ(ids(config), (Ids{'c'}));
  config["add_eos_token"] = true;
  EXPECT_EQ(ids(config), (Ids{'c', 301}));
  EXPECT_EQ(load_error(json, {{"add_bos_token", true}, {"bos_token", "<x>"}}),
            "add_bos_token: '<x>' is not a token");
}

TEST(Tokenizer, ChatTemplateForms) {
  const auto chat_template = [](const nlohmann::json& value) {
    const nlohmann::json config = {{"chat_template", value}};
    return (*Tokenizer::from_json(small_json().dump(), config.dump()))->chat_template();
  };
  EXPECT_EQ(chat_template("{{x}}"), "{{x}}");
  EXPECT_EQ(chat_template(nullptr), "");
  EXPECT_EQ(
      chat_template({{{"name", "tool_use"}, {"template", "t"}}, {{"name", "default"}, {"template", "d"}}}),
      "d");
  EXPECT_NE(load_error(small_json(), {{"chat_template", 3}}).find("chat_template"), std::string::npos);

  const std::filesystem::path dir = std::filesystem::path(::testing::TempDir()) / "fathom_tokenizer_test";
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "tokenizer.json") << small_json();
  EXPECT_EQ((*Tokenizer::load(dir.string()))->chat_template(), "");
  std::ofstream(dir / "tokenizer_config.json") << R"({"chat_template": "config"})";
  EXPECT_EQ((*Tokenizer::load(dir.string()))->chat_template(), "config");
  std::ofstream(dir / "chat_template.jinja") << "file";
  EXPECT_EQ((*Tokenizer::load(dir.string()))->chat_template(), "file");
  std::filesystem::remove_all(dir);
}

TEST(Tokenizer, WrongInputIsNamed) {
  EXPECT_EQ(load_error(small_json()), "no error");
  EXPECT_EQ(Tokenizer::from_json("{").error().message, "not valid JSON");
  EXPECT_EQ(Tokenizer::from_json("[]").error().message, "not a JSON object");
  EXPECT_EQ(Tokenizer::load("/no/such/model").error().code, ErrorCode::kNotFound);
  const auto with = [](const char* field, const nlohmann::json& value) {
    auto json = small_json();
    json[field] = value;
    return load_error(json);
  };
  EXPECT_NE(with("decoder", nullptr).find("decoder null is not supported"), std::string::npos);
  EXPECT_NE(with("decoder", {{"type", "Fuse"}}).find("\"Fuse\""), std::string::npos);
  EXPECT_NE(with("normalizer", {{"type", "Strip"}}).find("'Strip'"), std::string::npos);
  EXPECT_NE(with("post_processor", {{"type", "BertProcessing"}}).find("'BertProcessing'"), std::string::npos);
  EXPECT_NE(with("added_tokens", nlohmann::json::array({added(256, "x", true)}))
                .find("the id 256 of another token"),
            std::string::npos);
  EXPECT_NE(with("added_tokens", nlohmann::json::array({added(300, "", true)})).find("is empty"),
            std::string::npos);
  EXPECT_NE(with("added_tokens", nlohmann::json::array({added(300, "x", true), added(301, "x", true)}))
                .find("twice"),
            std::string::npos);
  EXPECT_NE(with("added_tokens", nlohmann::json::array({added(-5, "x", true)})).find("got -5"),
            std::string::npos);
  EXPECT_NE(with("model", nullptr).find("model type"), std::string::npos);
}

TEST(Detokenizer, DeltasAreTheWholeDecodeHoweverCut) {
  std::mt19937_64 random(17);
  for (int round = 0; round < 4000; ++round) {
    Ids ids;
    if (round % 2 == 0) {
      ids = demo().encode(random_text(random, random() % 60), round % 4 == 0);
    } else {
      // Any ids, most of them single bytes: ill-formed in every way.
      for (auto count = random() % 40; count > 0; --count) {
        ids.push_back(static_cast<int32_t>(random() % (random() % 4 == 0 ? 4000 : 300)));
      }
    }
    const bool skip_special = random() % 2;
    Detokenizer detokenizer(demo(), skip_special);
    std::string text;
    for (size_t pos = 0; pos < ids.size();) {
      const size_t count = std::min<size_t>(1 + random() % 3, ids.size() - pos);
      const std::string delta = detokenizer.push(std::span(ids).subspan(pos, count));
      ASSERT_TRUE(is_valid_utf8(delta));
      text += delta;
      pos += count;
      // Never behind by more than one unfinished character.
      const std::string so_far = demo().decode(std::span(ids).first(pos), skip_special);
      ASSERT_LE(so_far.size(), text.size() + 3);
    }
    text += detokenizer.finish();
    ASSERT_EQ(text, demo().decode(ids, skip_special));
    ASSERT_EQ(detokenizer.finish(), "");
  }
}

TEST(Detokenizer, HoldsAnUnfinishedCharacter) {
  const auto tokenizer = Tokenizer::from_json(small_json().dump());
  Detokenizer detokenizer(**tokenizer, false);
  EXPECT_EQ(detokenizer.push(Ids{0xE4}), "");
  EXPECT_EQ(detokenizer.push(Ids{0xBD}), "");
  EXPECT_EQ(detokenizer.push(Ids{0xA0, 'a', 0xF0}), "你a");
  EXPECT_EQ(detokenizer.push(Ids{}), "");
  EXPECT_EQ(detokenizer.push(Ids{'b', 0xFF}), "\uFFFDb\uFFFD");
  EXPECT_EQ(detokenizer.push(Ids{0xC3}), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
}

}  // namespace
}  // namespace fathom::text
