#include "engine/prompt_way.h"

#include <gtest/gtest.h>

namespace fathom::engine {
namespace {

model::ModelConfig demo() {
  return model::load_config(FATHOM_SOURCE_DIR "/models/demo").value();
}

TEST(PromptWay, FewTokensAfterManyAreAbsorbed) {
  const PromptWay way(demo());
  EXPECT_EQ(way.most_tokens(), 170);
  EXPECT_FALSE(way.absorbs(0, 1)) << "nothing is before it";
  EXPECT_TRUE(way.absorbs(16, 5));
  EXPECT_TRUE(way.absorbs(900, 16));
  EXPECT_TRUE(way.absorbs(100000, 170));
  EXPECT_FALSE(way.absorbs(100000, 171));
  EXPECT_FALSE(way.absorbs(100, 170)) << "they see each other, too";
}

TEST(PromptWay, NoneIsUnabsorbedAlways) {
  EXPECT_FALSE(PromptWay().absorbs(100000, 1));
  EXPECT_EQ(PromptWay().most_tokens(), 0);
}

}  // namespace
}  // namespace fathom::engine
