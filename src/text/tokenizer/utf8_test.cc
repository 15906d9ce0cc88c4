#include "text/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <random>

namespace fathom::text {
namespace {

TEST(Utf8, RepairsEachMaximalPartAsPythonDoes) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(repair_utf8(""), "");
  EXPECT_EQ(repair_utf8("caf\xC3\xA9 \xE4\xBD\xA0 \xF0\x9F\x98\x80"),
            "caf\xC3\xA9 \xE4\xBD\xA0 \xF0\x9F\x98\x80");
  EXPECT_EQ(repair_utf8("\xFF\xFF"), r + r);
  EXPECT_EQ(repair_utf8("\xE4\xBD"), r);
  EXPECT_EQ(repair_utf8("\xE4\xBD"
                        "a"),
            r + "a");
  EXPECT_EQ(repair_utf8("\xF0\x9F\x98"
                        "\xE4\xBD\xA0"),
            r + "\xE4\xBD\xA0");
  EXPECT_EQ(repair_utf8("\xC0\xAF"), r + r);                  // overlong
  EXPECT_EQ(repair_utf8("\xE0\x80\xAF"), r + r + r);          // overlong
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(repair_utf8("\x80"
                        "ab\xF1\x80\x80"),
            r + "ab" + r);
  EXPECT_EQ(repair_utf8(std::string(100, 'x') + "\xFE"), std::string(100, 'x') + r);
}

TEST(Utf8, EncodesAndDecodesEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, &text);
    ASSERT_TRUE(is_valid_utf8(text)) << static_cast<uint32_t>(c);
    ASSERT_EQ(utf8_length(text[0]), text.size());
    ASSERT_EQ(decode_utf8(text.data(), text.size()), c);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(incomplete_utf8_suffix(text.substr(0, cut)), cut);
      ASSERT_FALSE(is_valid_utf8(text.substr(0, cut)));
    }
    ASSERT_EQ(incomplete_utf8_suffix(text), 0u);
  }
}

TEST(Utf8, SuffixThatCannotBecomeACharacterIsNotIncomplete) {
  EXPECT_EQ(incomplete_utf8_suffix("\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xFF"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xC0"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xED\xA0"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\xF4\x90"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_suffix("a\xE4"), 1u);
}

TEST(Utf8, RepairOfAnyBytesIsValidAndKeepsValidText) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& byte : bytes) {
      constexpr uint8_t kInteresting[] = {0x00, 'a',  0x80, 0xBF, 0xC2, 0xE0,
                                          0xED, 0xEF, 0xF0, 0xF4, 0xA0, 0x9F};
      byte = static_cast<char>(random() % 2 ? kInteresting[random() % std::size(kInteresting)] : random());
    }
    const std::string repaired = repair_utf8(bytes);
    ASSERT_TRUE(is_valid_utf8(repaired));
    ASSERT_EQ(repaired == bytes, is_valid_utf8(bytes));
    ASSERT_EQ(repair_utf8(repaired), repaired);
  }
}

}  // namespace
}  // namespace fathom::text
