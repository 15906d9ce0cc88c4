#include "weights/read_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>

#include "weights/testing.h"

namespace fathom::weights {
namespace {

using testing::image;
using testing::TempFolder;

size_t pages_in_memory(std::span<const std::byte> bytes) {
  std::vector<unsigned char> pages(bytes.size() / 4096 + 1);
  FATHOM_CHECK(mincore(const_cast<std::byte*>(bytes.data()), bytes.size(), pages.data()) == 0, "mincore");
  size_t count = 0;
  for (const unsigned char page : pages) count += page & 1U;
  return count;
}

// Out of the page cache, where the file system lets go of it.
void evict(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  FATHOM_CHECK(fsync(file) == 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "evict");
  close(file);
}

TEST(ReadAhead, BringsWhatLiesBehindTheTensor) {
  const TempFolder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1000],"data_offsets":[0,1000]},)"
                             R"("b":{"dtype":"U8","shape":[8000000],"data_offsets":[1000,8001000]}})";
  folder.write("model.safetensors", image(header, 8'001'000));
  evict(folder.path() + "/model.safetensors");
  const auto checkpoint = std::move(Checkpoint::open(folder.path())).value();
  const auto bytes = checkpoint.files().front().bytes();
  const size_t all = bytes.size() / 4096;
  if (pages_in_memory(bytes) > all / 2) GTEST_SKIP() << "this file system keeps its pages";
  ReadAhead ahead(checkpoint);
  ahead.reading(*checkpoint.find("a"));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (pages_in_memory(bytes) < all && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(pages_in_memory(bytes), all);
}

}  // namespace
}  // namespace fathom::weights
