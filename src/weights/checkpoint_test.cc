#include "weights/checkpoint.h"

#include <gtest/gtest.h>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using testing::image;
using testing::TempFolder;

std::vector<std::byte> one_tensor(const std::string& name) {
  return image("{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
}

TEST(Checkpoint, OpensASingleFile) {
  const TempFolder folder;
  folder.write("model.safetensors", one_tensor("a"));
  const auto checkpoint = Checkpoint::open(folder.path()).value();
  ASSERT_NE(checkpoint.find("a"), nullptr);
  EXPECT_EQ(checkpoint.find("b"), nullptr);
  EXPECT_EQ(checkpoint.bytes(), 4);
}

TEST(Checkpoint, OpensShards) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a"));
  folder.write("s2.safetensors", one_tensor("b"));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{"total_size":8},"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}})");
  const auto checkpoint = Checkpoint::open(folder.path()).value();
  EXPECT_NE(checkpoint.find("a"), nullptr);
  EXPECT_NE(checkpoint.find("b"), nullptr);
  EXPECT_EQ(checkpoint.files().size(), 2U);
}

TEST(Checkpoint, ListsMissingShards) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a"));
  folder.write("model.safetensors.index.json",
               R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","c":"s3.safetensors"}})");
  const auto result = Checkpoint::open(folder.path());
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kNotFound);
  EXPECT_NE(result.error().message.find("2 of 3 shards are missing: s2.safetensors, s3.safetensors"),
            std::string::npos)
      << result.error().message;
}

TEST(Checkpoint, RefusesShardsElsewhere) {
  for (const char* shard : {"\"../x.safetensors\"", "\"/etc/passwd\"", "\"a/b\"", "\"..\"", "\"\"", "7",
                            "\"a\\u0000b\"", "\"a\\u001b[2Jb\"", "\"c:\\\\x\""}) {
    const TempFolder folder;
    folder.write("model.safetensors.index.json", std::string(R"({"weight_map":{"a":)") + shard + "}}");
    const auto result = Checkpoint::open(folder.path());
    ASSERT_FALSE(result.ok()) << shard;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument) << shard;
  }
}

TEST(Checkpoint, RefusesWrongIndexes) {
  for (const std::string text : {"", "[]", "{}", R"({"weight_map":[]})", "{\"weight_map\":", "\xff"}) {
    const TempFolder folder;
    folder.write("model.safetensors.index.json", text);
    EXPECT_EQ(Checkpoint::open(folder.path()).error().code, ErrorCode::kInvalidArgument) << text;
  }
  const TempFolder deep;
  deep.write("model.safetensors.index.json", R"({"weight_map":)" + std::string(100000, '['));
  EXPECT_NE(Checkpoint::open(deep.path()).error().message.find("nested"), std::string::npos);
}

TEST(Checkpoint, RefusesPromisesNotKept) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a"));
  folder.write("model.safetensors.index.json",
               R"({"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}})");
  const auto result = Checkpoint::open(folder.path());
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(result.error().message.find("'b'"), std::string::npos);
}

TEST(Checkpoint, SaysWhatItLooksFor) {
  const TempFolder folder;
  EXPECT_NE(Checkpoint::open(folder.path()).error().message.find("model.safetensors"), std::string::npos);
  EXPECT_EQ(Checkpoint::open(folder.path() + "/none").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace fathom::weights
