// What nodes say to each other, as bytes: integers little endian, texts and lists after their length. Every
// parse_* takes any bytes; lengths are checked against what is there and against limits before anything is
// allocated for them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom::dist {

// Goes up with any change to what is sent.
inline constexpr uint16_t kProtocol = 1;

inline constexpr uint32_t kMaxNodes = 1024;
inline constexpr uint32_t kMaxRanks = 4096;              // of the world
inline constexpr size_t kMaxFacts = 256;                 // that nodes must agree on
inline constexpr size_t kMaxText = 4096;                 // of a name, a value or an error
inline constexpr size_t kMaxGreeting = size_t{1} << 20;  // a Join or a Table
inline constexpr size_t kMaxNodeMessage = size_t{1} << 18;

class WireWriter {
 public:
  void u8(uint8_t value) { bytes_ += static_cast<char>(value); }
  void u16(uint16_t value) { integer(value); }
  void u32(uint32_t value) { integer(value); }
  void u64(uint64_t value) { integer(value); }
  void text(std::string_view text);  // what is above kMaxText is cut off
  std::string take() { return std::move(bytes_); }

 private:
  template <class T>
  void integer(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  std::string bytes_;
};

// After the first read beyond the end, all reads give nothing and ok() is false.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}
  uint8_t u8() { return integer<uint8_t>(); }
  uint16_t u16() { return integer<uint16_t>(); }
  uint32_t u32() { return integer<uint32_t>(); }
  uint64_t u64() { return integer<uint64_t>(); }
  std::string text();
  // A count of things that take `each` bytes at least, of which there may be `most`.
  uint32_t count(size_t most, size_t each);
  void fail() { ok_ = false; }
  bool ok() const { return ok_; }
  bool done() const { return ok_ && bytes_.empty(); }  // all was read, and no more

 private:
  template <class T>
  T integer() {
    if (!ok_ || bytes_.size() < sizeof(T)) {
      ok_ = false;
      return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i)
      value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[i])) << (8 * i);
    bytes_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  std::string_view bytes_;
  bool ok_ = true;
};

// Something that must be the same on all nodes, as a user would name it: "--tp" "4".
struct Fact {
  std::string name, value;
  bool operator==(const Fact&) const = default;
};

// A node to node 0.
struct Join {
  uint32_t node = 0, nodes = 0;
  uint32_t ranks = 0;  // that it has
  uint16_t port = 0;   // where it listens for the nodes above it; 0: nowhere
  std::vector<Fact> facts = {};
  bool operator==(const Join&) const = default;
};
// Node 0 to a node: the world, or why there is none.
struct Table {
  struct Node {
    std::string host;  // as node 0 sees it
    uint16_t port = 0;
    uint32_t ranks = 0;
    bool operator==(const Node&) const = default;
  };
  uint64_t session = 0;
  std::vector<Node> nodes = {};
  std::string refusal = {};  // empty: none
  bool operator==(const Table&) const = default;
};
// The first message of a connection between two nodes of the world.
struct LinkHello {
  enum class Kind : uint8_t { kNode, kControl, kRanks };
  uint64_t session = 0;
  uint32_t node = 0;
  Kind kind = Kind::kNode;
  uint32_t from_rank = 0, to_rank = 0;  // of kRanks, in the world
  bool operator==(const LinkHello&) const = default;
};
// How a connection begins after the proofs: a Join or a LinkHello.
struct Greeting {
  std::optional<Join> join = {};
  std::optional<LinkHello> link = {};
  bool operator==(const Greeting&) const = default;
};
// Between nodes while the world lives.
struct NodeMessage {
  enum class Kind : uint8_t { kBeat, kFail, kLeft, kBye, kAskedToEnd };
  struct Wait {
    uint32_t rank = 0;
    std::vector<uint32_t> missing;  // the ranks that it waits for
    bool operator==(const Wait&) const = default;
  };
  Kind kind = Kind::kBeat;
  std::vector<Wait> waits = {};   // kBeat: of the node's ranks
  Error error = {};               // kFail
  uint64_t group = 0, calls = 0;  // kLeft: `rank` has left that group after so many calls
  uint32_t rank = 0;
};
bool operator==(const NodeMessage& a, const NodeMessage& b);

// Stands before what one rank sends another in a collective. Of a fixed size, so that it needs no length.
struct FrameHeader {
  uint8_t kind = 0, dtype = 0;  // Call::Kind, device::DType
  uint8_t phase = 0;            // of a collective that exchanges twice
  uint32_t root = 0;
  uint64_t group = 0, call = 0;
  uint64_t count = 0;
  uint64_t parts = 0;    // a digest of the sizes of the parts
  uint64_t payload = 0;  // bytes that follow
  bool operator==(const FrameHeader&) const = default;
};
inline constexpr size_t kFrameBytes = 2 + 1 + 1 + 4 + 5 * 8;
using FrameBytes = std::array<char, kFrameBytes>;

std::string encode(const Greeting& greeting);
std::string encode(const Table& table);
std::string encode(const NodeMessage& message);
FrameBytes encode(const FrameHeader& header);

Result<Greeting> parse_greeting(std::string_view bytes);
Result<Table> parse_table(std::string_view bytes);
Result<NodeMessage> parse_node_message(std::string_view bytes);
FrameHeader parse_frame(const FrameBytes& bytes);

// What differs, as "--tp: 4 on node 0, 2 on node 1; ...", or "".
std::string differences(const std::vector<Fact>& host, const std::vector<Fact>& guest, uint32_t guest_node);

}  // namespace fathom::dist
