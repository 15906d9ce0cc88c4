// A file mapped for reading that may shrink, or stop being readable, while it is read.
//
// Touching a mapped byte that the file no longer has raises SIGBUS, which would end the process. The first
// mapping installs a handler for it: where the address lies in a MappedFile, the bytes from there to the end
// become zeros, and intact() tells of it from then on. A SIGBUS elsewhere takes its usual course. So whoever
// reads mapped bytes asks intact() afterwards, before he believes them.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace fathom::weights {

// Movable. Reading is thread safe.
class MappedFile {
 public:
  // kNotFound, or kInvalidArgument where it is no regular file.
  static Result<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // kDataLoss once a byte that was touched could not be read.
  Result<void> intact() const;

 private:
  struct Guard;
  MappedFile() = default;

  std::string path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Guard* guard_ = nullptr;  // while mapped

  friend struct GuardList;
};

}  // namespace fathom::weights
