#include "dist/wire.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

namespace fathom::dist {
namespace {

enum class First : uint8_t { kJoin = 1, kLink = 2 };

Error malformed(const char* what) {
  return error(ErrorCode::kInvalidArgument, "a malformed {}", what);
}

// "4", "2 ranks", or what stands for a fact that a node has not.
std::string value_of(const std::vector<Fact>& facts, const std::string& name) {
  const auto found = std::find_if(facts.begin(), facts.end(), [&](const Fact& f) { return f.name == name; });
  if (found == facts.end()) return "nothing";
  return found->value.empty() ? "empty" : found->value;
}

}  // namespace

void WireWriter::text(std::string_view text) {
  text = text.substr(0, kMaxText);
  u32(static_cast<uint32_t>(text.size()));
  bytes_ += text;
}

std::string WireReader::text() {
  const uint32_t size = count(kMaxText, 1);
  if (!ok_) return {};
  std::string text(bytes_.substr(0, size));
  bytes_.remove_prefix(size);
  return text;
}

uint32_t WireReader::count(size_t most, size_t each) {
  const uint32_t count = u32();
  if (count > most || count * each > bytes_.size()) ok_ = false;
  return ok_ ? count : 0;
}

bool operator==(const NodeMessage& a, const NodeMessage& b) {
  return a.kind == b.kind && a.waits == b.waits && a.error.code == b.error.code &&
         a.error.message == b.error.message && a.group == b.group && a.calls == b.calls && a.rank == b.rank;
}

std::string encode(const Greeting& greeting) {
  WireWriter writer;
  if (greeting.join) {
    const Join& join = *greeting.join;
    writer.u8(static_cast<uint8_t>(First::kJoin));
    writer.u32(join.node);
    writer.u32(join.nodes);
    writer.u32(join.ranks);
    writer.u16(join.port);
    writer.u32(static_cast<uint32_t>(join.facts.size()));
    for (const Fact& fact : join.facts) {
      writer.text(fact.name);
      writer.text(fact.value);
    }
  } else {
    const LinkHello& link = greeting.link.value();
    writer.u8(static_cast<uint8_t>(First::kLink));
    writer.u64(link.session);
    writer.u32(link.node);
    writer.u8(static_cast<uint8_t>(link.kind));
    writer.u32(link.from_rank);
    writer.u32(link.to_rank);
  }
  return writer.take();
}

Result<Greeting> parse_greeting(std::string_view bytes) {
  WireReader reader(bytes);
  Greeting greeting;
  const uint8_t first = reader.u8();
  if (first == static_cast<uint8_t>(First::kJoin)) {
    Join& join = greeting.join.emplace();
    join.node = reader.u32();
    join.nodes = reader.u32();
    join.ranks = reader.u32();
    join.port = reader.u16();
    const uint32_t count = reader.count(kMaxFacts, 8);
    for (uint32_t i = 0; i < count; ++i) {
      std::string name = reader.text();
      join.facts.push_back({std::move(name), reader.text()});
    }
    if (join.ranks == 0 || join.ranks > kMaxRanks) reader.fail();
  } else if (first == static_cast<uint8_t>(First::kLink)) {
    LinkHello& link = greeting.link.emplace();
    link.session = reader.u64();
    link.node = reader.u32();
    const uint8_t kind = reader.u8();
    if (kind > static_cast<uint8_t>(LinkHello::Kind::kRanks)) reader.fail();
    link.kind = static_cast<LinkHello::Kind>(kind);
    link.from_rank = reader.u32();
    link.to_rank = reader.u32();
  } else {
    reader.fail();
  }
  if (!reader.done()) return malformed("greeting");
  return greeting;
}

std::string encode(const Table& table) {
  WireWriter writer;
  writer.u64(table.session);
  writer.text(table.refusal);
  writer.u32(static_cast<uint32_t>(table.nodes.size()));
  for (const Table::Node& node : table.nodes) {
    writer.text(node.host);
    writer.u16(node.port);
    writer.u32(node.ranks);
  }
  return writer.take();
}

Result<Table> parse_table(std::string_view bytes) {
  WireReader reader(bytes);
  Table table;
  table.session = reader.u64();
  table.refusal = reader.text();
  const uint32_t count = reader.count(kMaxNodes, 10);
  uint64_t ranks = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Table::Node node;
    node.host = reader.text();
    node.port = reader.u16();
    node.ranks = reader.u32();
    ranks += node.ranks;
    if (node.ranks == 0 || ranks > kMaxRanks) reader.fail();
    table.nodes.push_back(std::move(node));
  }
  if (!reader.done()) return malformed("table of nodes");
  return table;
}

std::string encode(const NodeMessage& message) {
  WireWriter writer;
  writer.u8(static_cast<uint8_t>(message.kind));
  switch (message.kind) {
    case NodeMessage::Kind::kBeat:
      writer.u32(static_cast<uint32_t>(message.waits.size()));
      for (const auto& wait : message.waits) {
        writer.u32(wait.rank);
        writer.u32(static_cast<uint32_t>(wait.missing.size()));
        for (const uint32_t rank : wait.missing) writer.u32(rank);
      }
      break;
    case NodeMessage::Kind::kFail:
      writer.u8(static_cast<uint8_t>(message.error.code));
      writer.text(message.error.message);
      break;
    case NodeMessage::Kind::kLeft:
      writer.u64(message.group);
      writer.u64(message.calls);
      writer.u32(message.rank);
      break;
    case NodeMessage::Kind::kBye:
    case NodeMessage::Kind::kAskedToEnd:
      break;
  }
  return writer.take();
}

Result<NodeMessage> parse_node_message(std::string_view bytes) {
  WireReader reader(bytes);
  NodeMessage message;
  const uint8_t kind = reader.u8();
  if (kind > static_cast<uint8_t>(NodeMessage::Kind::kAskedToEnd)) reader.fail();
  message.kind = static_cast<NodeMessage::Kind>(kind);
  switch (message.kind) {
    case NodeMessage::Kind::kBeat: {
      const uint32_t waits = reader.count(kMaxRanks, 8);
      for (uint32_t i = 0; i < waits; ++i) {
        NodeMessage::Wait wait;
        wait.rank = reader.u32();
        const uint32_t missing = reader.count(kMaxRanks, 4);
        for (uint32_t m = 0; m < missing; ++m) wait.missing.push_back(reader.u32());
        message.waits.push_back(std::move(wait));
      }
      break;
    }
    case NodeMessage::Kind::kFail: {
      const uint8_t code = reader.u8();
      if (code > static_cast<uint8_t>(ErrorCode::kInternal)) reader.fail();
      message.error.code = static_cast<ErrorCode>(code);
      message.error.message = reader.text();
      break;
    }
    case NodeMessage::Kind::kLeft:
      message.group = reader.u64();
      message.calls = reader.u64();
      message.rank = reader.u32();
      break;
    default:
      break;
  }
  if (!reader.done()) return malformed("message between nodes");
  return message;
}

FrameBytes encode(const FrameHeader& header) {
  WireWriter writer;
  writer.u8(header.kind);
  writer.u8(header.dtype);
  writer.u8(header.phase);
  writer.u8(0);
  writer.u32(header.root);
  for (const uint64_t value : {header.group, header.call, header.count, header.parts, header.payload})
    writer.u64(value);
  const std::string bytes = writer.take();
  FrameBytes frame;
  FATHOM_CHECK_EQ(bytes.size(), frame.size());
  std::copy(bytes.begin(), bytes.end(), frame.begin());
  return frame;
}

FrameHeader parse_frame(const FrameBytes& bytes) {
  WireReader reader({bytes.data(), bytes.size()});
  FrameHeader header;
  header.kind = reader.u8();
  header.dtype = reader.u8();
  header.phase = reader.u8();
  reader.u8();
  header.root = reader.u32();
  for (uint64_t* value : {&header.group, &header.call, &header.count, &header.parts, &header.payload})
    *value = reader.u64();
  return header;
}

std::string differences(const std::vector<Fact>& host, const std::vector<Fact>& guest, uint32_t guest_node) {
  std::vector<std::string> names;
  for (const auto* facts : {&host, &guest}) {
    for (const Fact& fact : *facts) {
      if (std::find(names.begin(), names.end(), fact.name) == names.end()) names.push_back(fact.name);
    }
  }
  std::vector<std::string> found;
  for (const auto& name : names) {
    const std::string a = value_of(host, name);
    const std::string b = value_of(guest, name);
    if (a != b) found.push_back(fmt::format("{}: {} on node 0, {} on node {}", name, a, b, guest_node));
  }
  return fmt::format("{}", fmt::join(found, "; "));
}

}  // namespace fathom::dist
