// For tests: safetensors files made by hand, right or wrong.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::weights::testing {

// 8 bytes of length, the header, `data_bytes` counting bytes.
inline std::vector<std::byte> image(std::string_view header, size_t data_bytes) {
  std::vector<std::byte> bytes;
  uint64_t length = header.size();
  for (int i = 0; i < 8; ++i, length >>= 8) bytes.push_back(static_cast<std::byte>(length & 0xff));
  for (const char c : header) bytes.push_back(static_cast<std::byte>(c));
  for (size_t i = 0; i < data_bytes; ++i) bytes.push_back(static_cast<std::byte>(i));
  return bytes;
}

// A folder that goes away with the test.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "fathom_test_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& name, std::span<const std::byte> bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  void write(const std::string& name, std::string_view text) const {
    write(name, std::as_bytes(std::span(text.data(), text.size())));
  }

 private:
  std::string path_;
};

}  // namespace fathom::weights::testing
