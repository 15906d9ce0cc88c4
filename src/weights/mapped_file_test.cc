#include "weights/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <filesystem>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using testing::TempFolder;

constexpr size_t kBytes = 1 << 20;

// kBytes of sevens.
std::string write_sevens(const TempFolder& folder, const std::string& name) {
  folder.write(name, std::vector<std::byte>(kBytes, std::byte{7}));
  return folder.path() + '/' + name;
}

int64_t sum(std::span<const std::byte> bytes) {
  int64_t total = 0;
  for (const std::byte byte : bytes) total += static_cast<int64_t>(byte);
  return total;
}

TEST(MappedFile, WhatIsCutOffReadsAsZerosAndIsToldOf) {
  const TempFolder folder;
  const std::string path = write_sevens(folder, "a");
  const auto file = MappedFile::open(path).value();
  const auto other = MappedFile::open(write_sevens(folder, "b")).value();
  EXPECT_EQ(sum(file.bytes()), 7 * int64_t{kBytes});
  EXPECT_TRUE(file.intact().ok());
  std::filesystem::resize_file(path, kBytes / 2);
  EXPECT_TRUE(file.intact().ok());  // nothing that is gone was touched
  EXPECT_EQ(sum(file.bytes()), 7 * int64_t{kBytes} / 2);
  const auto failure = file.intact();
  ASSERT_FALSE(failure.ok());
  EXPECT_EQ(failure.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(failure.error().message.find(path + ": had 1048576 bytes when it was opened and has 524288 now"),
            std::string::npos)
      << failure.error().message;
  EXPECT_EQ(sum(other.bytes()), 7 * int64_t{kBytes});
  EXPECT_TRUE(other.intact().ok());
}

TEST(MappedFile, ADeletedFileStaysWhole) {
  const TempFolder folder;
  const std::string path = write_sevens(folder, "a");
  const auto file = MappedFile::open(path).value();
  std::filesystem::remove(path);
  EXPECT_EQ(sum(file.bytes()), 7 * int64_t{kBytes});
  EXPECT_TRUE(file.intact().ok());
}

TEST(MappedFile, TheNextMappingStartsAnew) {
  const TempFolder folder;
  for (int i = 0; i < 3; ++i) {
    const std::string path = write_sevens(folder, "a");
    auto opened = MappedFile::open(path).value();
    const MappedFile file = std::move(opened);
    EXPECT_TRUE(file.intact().ok());
    std::filesystem::resize_file(path, 0);
    EXPECT_EQ(sum(file.bytes()), 0);
    EXPECT_FALSE(file.intact().ok());
  }
}

TEST(MappedFile, ManyThreadsMayMeetTheEnd) {
  const TempFolder folder;
  const std::string path = write_sevens(folder, "a");
  const auto file = MappedFile::open(path).value();
  std::filesystem::resize_file(path, kBytes / 4);
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      EXPECT_EQ(sum(file.bytes()), 7 * int64_t{kBytes} / 4);
      EXPECT_FALSE(file.intact().ok());
    });
  }
  for (auto& reader : readers) reader.join();
}

TEST(MappedFile, ABusErrorElsewhereStillEndsTheProcess) {
  const TempFolder folder;
  const std::string path = write_sevens(folder, "a");
  const auto file = MappedFile::open(path).value();
  EXPECT_DEATH(
      {
        const int descriptor = ::open(path.c_str(), O_RDONLY);
        const auto* foreign =
            static_cast<volatile std::byte*>(mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, descriptor, 0));
        std::filesystem::resize_file(path, 0);
        (void)static_cast<int>(foreign[kBytes - 1]);
      },
      "");
}

TEST(MappedFile, SaysWhatCannotBeMapped) {
  const TempFolder folder;
  EXPECT_EQ(MappedFile::open(folder.path() + "/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::open(folder.path()).error().code, ErrorCode::kInvalidArgument);
  folder.write("empty", std::string_view());
  const auto empty = MappedFile::open(folder.path() + "/empty").value();
  EXPECT_TRUE(empty.bytes().empty());
  EXPECT_TRUE(empty.intact().ok());
}

}  // namespace
}  // namespace fathom::weights
