// Numbers and lists as bytes for another node of the same version: little endian, lists after their counts.
// And what a reader asks of each number: whether it is within limits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::engine {

static_assert(std::endian::native == std::endian::little);

inline bool within(int64_t value, int64_t most) {
  return value >= 0 && value <= most;
}
// All in 0 .. end - 1.
template <class T>
bool inside(const std::vector<T>& values, int64_t end) {
  return std::all_of(values.begin(), values.end(), [&](T value) { return value >= 0 && value < end; });
}

class ByteWriter {
 public:
  explicit ByteWriter(std::string& bytes) : bytes_(bytes) {}
  void byte(uint8_t value) { bytes_ += static_cast<char>(value); }
  void flag(bool value) { byte(value ? 1 : 0); }
  void number(int32_t value) { raw(&value, sizeof(value)); }
  void wide(uint64_t value) { raw(&value, sizeof(value)); }
  void real(float value) { raw(&value, sizeof(value)); }
  template <class T>
  void list(const std::vector<T>& values) {
    number(static_cast<int32_t>(values.size()));
    raw(values.data(), values.size() * sizeof(T));
  }
  // A list of what write(value) writes.
  template <class T, class Write>
  void items(const std::vector<T>& values, const Write& write) {
    number(static_cast<int32_t>(values.size()));
    for (const T& value : values) write(value);
  }

 private:
  void raw(const void* data, size_t size) { bytes_.append(static_cast<const char*>(data), size); }
  std::string& bytes_;
};

// Takes any bytes: what is not there reads as zero or nothing, and ok() is false from then on.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}
  uint8_t byte() { return one<uint8_t>(); }
  bool flag() { return byte() != 0; }
  int32_t number() { return one<int32_t>(); }
  uint64_t wide() { return one<uint64_t>(); }
  float real() { return one<float>(); }
  template <class T>
  std::vector<T> list() {
    std::vector<T> values(count(sizeof(T)));
    raw(values.data(), values.size() * sizeof(T));
    return values;
  }
  // A list of what read(*this) reads, at least `bytes` each.
  template <class Read>
  auto items(size_t bytes, const Read& read) {
    std::vector<decltype(read(*this))> values;
    for (size_t left = count(bytes); left > 0 && ok_; --left) values.push_back(read(*this));
    return values;
  }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && bytes_.empty(); }

 private:
  // How many of something that takes at least `bytes` each follow.
  size_t count(size_t bytes) {
    const int32_t count = number();
    if (count < 0 || static_cast<size_t>(count) > bytes_.size() / bytes) ok_ = false;
    return ok_ ? static_cast<size_t>(count) : 0;
  }
  template <class T>
  T one() {
    T value{};
    raw(&value, sizeof(value));
    return value;
  }
  void raw(void* data, size_t size) {
    if (!ok_ || bytes_.size() < size) {
      ok_ = false;
      return;
    }
    if (size > 0) std::memcpy(data, bytes_.data(), size);
    bytes_.remove_prefix(size);
  }
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace fathom::engine
