#include <gtest/gtest.h>

#include "text/logits/no_repeat_mask.h"
#include "text/logits/pickled_class.h"

namespace fathom::text {
namespace {

std::vector<int32_t> forbidden(TokenMask& mask, int32_t vocab) {
  std::vector<uint64_t> allowed(num_mask_words(vocab));
  EXPECT_TRUE(mask.fill(allowed).ok());
  std::vector<int32_t> out;
  for (int32_t t = 0; t < vocab; ++t) {
    if ((allowed[static_cast<size_t>(t) / 64] >> (t % 64) & 1) == 0) out.push_back(t);
  }
  return out;
}

using Ids = std::vector<int32_t>;

TEST(NoRepeatMask, ForbidsWhatCompletesAnNGram) {
  const auto mask = NoRepeatMaskSource({3, 100, {}}, {1, 2, 70, 5, 1}).begin();
  EXPECT_FALSE(mask->constrains());
  mask->accept(2);
  EXPECT_TRUE(mask->constrains());
  EXPECT_EQ(forbidden(*mask, 100), (Ids{70}));
  mask->accept(9);
  EXPECT_FALSE(mask->constrains());
}

TEST(NoRepeatMask, LooksNoFurtherThanItsWindow) {
  const Ids prompt = {1, 2, 7, 1, 2, 8, 0, 0, 1, 2};
  EXPECT_EQ(forbidden(*NoRepeatMaskSource({3, 10, {}}, prompt).begin(), 64), (Ids{7, 8}));
  EXPECT_EQ(forbidden(*NoRepeatMaskSource({3, 9, {}}, prompt).begin(), 64), (Ids{8}));
  EXPECT_EQ(forbidden(*NoRepeatMaskSource({3, 10, {8}}, prompt).begin(), 64), (Ids{7}));
  EXPECT_FALSE(NoRepeatMaskSource({3, 3, {}}, prompt).begin()->constrains());
  EXPECT_EQ(forbidden(*NoRepeatMaskSource({1, 2, {}}, prompt).begin(), 64), (Ids{1, 2}));
}

TEST(JointMask, AllowsWhatBothAllow) {
  const auto repeats = std::make_shared<NoRepeatMaskSource>(NoRepeatRule{2, 100, {}}, Ids{1, 2, 1});
  const auto others = std::make_shared<NoRepeatMaskSource>(NoRepeatRule{2, 100, {}}, Ids{1, 3, 1});
  const auto joint = JointMaskSource(repeats, others).begin();
  EXPECT_EQ(forbidden(*joint, 64), (Ids{2, 3}));
  joint->accept(4);
  EXPECT_FALSE(joint->constrains());
}

std::string pickle_of(const std::string& module, const std::string& name) {
  const auto text = [](const std::string& value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + value + "\x94";
  };
  return std::string("\x80\x04\x95\x10\0\0\0\0\0\0\0", 11) + text(module) + text(name) + "\x93\x94.";
}

TEST(PickledClass, ReadsAClassByName) {
  const auto found = read_pickled_class(pickle_of("some.module", "SomeClass"));
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->module, "some.module");
  EXPECT_EQ(found->name, "SomeClass");
  const auto old = read_pickled_class("csome.module\nSomeClass\np0\n.");
  ASSERT_TRUE(old.ok()) << old.error().message;
  EXPECT_EQ(old->name, "SomeClass");
}

TEST(PickledClass, RefusesAllElse) {
  const std::string good = pickle_of("m", "C");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(read_pickled_class(good.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(read_pickled_class(good + ".").ok());
  // A call: os.system("true").
  const auto call = read_pickled_class("cos\nsystem\n(S'true'\ntR.");
  ASSERT_FALSE(call.ok());
  EXPECT_EQ(call.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(read_pickled_class("\x80\x04N.").ok());
  EXPECT_FALSE(read_pickled_class("\x80\x04.").ok());
  EXPECT_FALSE(read_pickled_class(std::string("\x80\x04X\xff\xff\xff\xff", 7)).ok());
  EXPECT_FALSE(read_pickled_class("cm\nC\ncm\nD\n.").ok());
}

}  // namespace
}  // namespace fathom::text
