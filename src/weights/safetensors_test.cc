#include "weights/safetensors.h"

#include <gtest/gtest.h>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using testing::image;
using testing::TempFolder;

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin,
                  int end) {
  return '"' + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + ',' + std::to_string(end) + "]}";
}

// The error's text, or "" where the image is accepted.
std::string complaint(const std::string& header, size_t data_bytes) {
  const auto bytes = image(header, data_bytes);
  const auto result = parse_safetensors(bytes, "file");
  if (result.ok()) return "";
  EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
  EXPECT_EQ(result.error().message.rfind("file: ", 0), 0U) << result.error().message;
  return result.error().message;
}

TEST(Safetensors, ReadsTensorsInPlace) {
  const auto bytes =
      image(R"({"__metadata__":{"format":"pt"},)" + entry("a", "BF16", "[2,3]", 4, 16) + "," +
                entry("b", "F32", "[]", 0, 4) + "," + entry("odd", "I64", "[1]", 16, 24) + "}  ",
            24);
  const auto tensors = parse_safetensors(bytes, "file").value();
  ASSERT_EQ(tensors.size(), 3U);
  EXPECT_EQ(describe(tensors[0]), "BF16 [2, 3]");
  EXPECT_EQ(tensors[0].dtype, device::DType::kBF16);
  EXPECT_EQ(tensors[0].bytes, 12U);
  EXPECT_EQ(static_cast<int>(tensors[0].data[0]), 4);
  EXPECT_TRUE(tensors[1].shape.empty());
  EXPECT_EQ(tensors[1].bytes, 4U);
  EXPECT_FALSE(tensors[2].dtype.has_value());  // known to the format, not to Fathom
}

TEST(Safetensors, AcceptsEmptyTensorsAndNoTensors) {
  EXPECT_EQ(complaint("{}", 0), "");
  EXPECT_EQ(complaint("{" + entry("a", "F32", "[0,7]", 0, 0) + "," + entry("b", "F16", "[1]", 0, 2) + "}", 2),
            "");
}

TEST(Safetensors, RefusesWrongBytes) {
  const struct {
    std::string header;
    size_t data;
    const char* says;
  } cases[] = {
      {"", 0, "does not start with"},
      {"[1]", 0, "does not start with"},
      {"{", 0, "not valid JSON"},
      {"{}x", 0, "not valid JSON"},
      {R"({"a":5})", 0, "unexpected number"},
      {R"({"a":{}})", 0, "is missing (tensor 'a')"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "is missing"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "unexpected array"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative"},
      {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "no integer"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "two numbers"},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, "unexpected number"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "occurs twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}})", 4, "unknown field"},
      {R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,4]}})", 4, "object inside"},
      {"{" + entry("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) + "}", 4, "more than 8"},
      {"{" + entry("a", "F32", "[2]", 0, 4) + "}", 4, "does not take the 4 bytes"},
      {"{" + entry("a", "F32", "[1]", 4, 0) + "}", 4, "run backwards"},
      {"{" + entry("a", "F32", "[2]", 0, 8) + "}", 4, "truncated"},
      {"{" + entry("a", "F32", "[9223372036854775807,9223372036854775807,4]", 0, 4) + "}", 4,
       "does not take"},
      {"{" + entry("a", "F32", "[4294967296,4294967296,0]", 0, 0) + "}", 0, "does not take"},
      {"{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F32", "[1]", 2, 6) + "}", 6, "overlaps"},
      {"{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F32", "[1]", 6, 10) + "}", 10, "no tensor"},
      {"{" + entry("a", "F32", "[1]", 0, 4) + "}", 9, "accounts for 4 bytes"},
      {"{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 4, 8) + "}", 8, "occurs twice"},
  };
  for (const auto& item : cases) {
    const std::string message = complaint(item.header, item.data);
    EXPECT_NE(message.find(item.says), std::string::npos) << item.header << "\n  says: " << message;
  }
}

TEST(Safetensors, RefusesWrongLengths) {
  const std::vector<std::byte> tiny(5);
  EXPECT_FALSE(parse_safetensors(tiny, "file").ok());
  std::vector<std::byte> huge(16, std::byte{0xff});
  EXPECT_NE(parse_safetensors(huge, "file").error().message.find("at most"), std::string::npos);
  auto cut = image("{" + entry("a", "F32", "[1]", 0, 4) + "}", 4);
  for (size_t size = 0; size < cut.size(); ++size) {
    EXPECT_FALSE(parse_safetensors(std::span(cut).first(size), "file").ok()) << size;
  }
}

TEST(Safetensors, NestingCostsNothing) {
  const std::string deep(1 << 20, '[');
  EXPECT_NE(complaint(R"({"a":)" + deep, 0), "");
}

TEST(SafetensorsFile, MapsAndMoves) {
  const TempFolder folder;
  folder.write("x.safetensors", image("{" + entry("a", "F32", "[1]", 0, 4) + "}", 4));
  SafetensorsFile file = SafetensorsFile::open(folder.path() + "/x.safetensors").value();
  SafetensorsFile moved = std::move(file);
  ASSERT_EQ(moved.tensors().size(), 1U);
  EXPECT_EQ(static_cast<int>(moved.tensors()[0].data[3]), 3);
}

TEST(SafetensorsFile, SaysWhatIsWrong) {
  const TempFolder folder;
  EXPECT_EQ(SafetensorsFile::open(folder.path() + "/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::open(folder.path()).error().code, ErrorCode::kInvalidArgument);
  folder.write("empty", std::string_view());
  EXPECT_EQ(SafetensorsFile::open(folder.path() + "/empty").error().code, ErrorCode::kDataLoss);
}

}  // namespace
}  // namespace fathom::weights
