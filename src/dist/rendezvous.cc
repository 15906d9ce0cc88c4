#include "dist/rendezvous.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "base/log.h"
#include "dist/doorman.h"
#include "dist/handshake.h"

namespace fathom::dist {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kWord{10};        // for an answer that should come at once
constexpr seconds kTelling{5};      // between log lines
constexpr milliseconds kLook{250};  // at what else may have happened
constexpr milliseconds kRetry{200};

double seconds_since(Deadline start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

Deadline sooner(Deadline deadline, steady_clock::duration from_now) {
  return std::min(deadline, steady_clock::now() + from_now);
}

// Says "waiting for ..., 12 s", at once and then now and then.
class Teller {
 public:
  void tell(const std::string& what) {
    if (const auto now = steady_clock::now(); now >= next_ || what != last_) {
      LOG_INFO("waiting for {}, {:.0f} s", what, seconds_since(start_));
      next_ = now + kTelling;
      last_ = what;
    }
  }
  double waited() const { return seconds_since(start_); }

 private:
  const Deadline start_ = steady_clock::now();
  Deadline next_ = start_;
  std::string last_;
};

Wiring make_wiring(const RendezvousOptions& options, const std::vector<Table::Node>& nodes) {
  Wiring wiring;
  wiring.node = options.node;
  wiring.nodes.resize(nodes.size());
  wiring.control.resize(nodes.size());
  for (const auto& node : nodes) {
    wiring.ranks.push_back(static_cast<int>(node.ranks));
    wiring.hosts.push_back(node.host);
  }
  wiring.peers.resize(static_cast<size_t>(options.ranks));
  for (auto& row : wiring.peers) row.resize(static_cast<size_t>(wiring.world_size()));
  return wiring;
}

// The links of this node to node `lower`, which it opens.
Result<void> connect_node(const RendezvousOptions& options, const Address& address, uint64_t session,
                          int lower, Deadline deadline, Wiring& wiring) {
  const auto open = [&](LinkHello hello) -> Result<Socket> {
    hello.session = session;
    hello.node = static_cast<uint32_t>(options.node);
    FATHOM_ASSIGN(Socket socket, connect_to(address, deadline));
    FATHOM_TRY(prove_as_guest(socket, options.secret, deadline));
    FATHOM_TRY(send_message(socket, encode(Greeting{.link = hello}), deadline));
    return socket;
  };
  const auto index = static_cast<size_t>(lower);
  FATHOM_ASSIGN(wiring.nodes[index], open({.kind = LinkHello::Kind::kNode}));
  if (lower == 0) {
    FATHOM_ASSIGN(wiring.control[0], open({.kind = LinkHello::Kind::kControl}));
  }
  const int mine = wiring.first_rank(options.node);
  const int theirs = wiring.first_rank(lower);
  for (int r = 0; r < options.ranks; ++r) {
    for (int p = 0; p < wiring.ranks[index]; ++p) {
      FATHOM_ASSIGN(wiring.peers[static_cast<size_t>(r)][static_cast<size_t>(theirs + p)],
                    open({.kind = LinkHello::Kind::kRanks,
                          .from_rank = static_cast<uint32_t>(mine + r),
                          .to_rank = static_cast<uint32_t>(theirs + p)}));
    }
  }
  return {};
}

// The place of a link that another node opened; null where there is none for it.
Socket* place_of(const LinkHello& hello, uint64_t session, Wiring& wiring) {
  const auto node = static_cast<size_t>(hello.node);
  if (hello.session != session || node <= static_cast<size_t>(wiring.node) || node >= wiring.ranks.size())
    return nullptr;
  if (hello.kind == LinkHello::Kind::kNode) return &wiring.nodes[node];
  if (hello.kind == LinkHello::Kind::kControl) return wiring.node == 0 ? &wiring.control[node] : nullptr;
  const auto theirs = static_cast<uint32_t>(wiring.first_rank(static_cast<int>(node)));
  const auto mine = static_cast<uint32_t>(wiring.first_rank(wiring.node));
  if (hello.from_rank < theirs || hello.from_rank - theirs >= static_cast<uint32_t>(wiring.ranks[node]) ||
      hello.to_rank < mine || hello.to_rank - mine >= wiring.peers.size())
    return nullptr;
  return &wiring.peers[hello.to_rank - mine][hello.from_rank];
}

// The nodes above this one whose links are not all there.
std::vector<int> unlinked(const Wiring& wiring) {
  std::vector<int> missing;
  for (int node = wiring.node + 1; node < static_cast<int>(wiring.ranks.size()); ++node) {
    const auto index = static_cast<size_t>(node);
    bool whole = wiring.nodes[index].open() && (wiring.node != 0 || wiring.control[index].open());
    const auto first = static_cast<size_t>(wiring.first_rank(node));
    for (const auto& row : wiring.peers) {
      for (size_t r = first; r < first + static_cast<size_t>(wiring.ranks[index]); ++r)
        whole = whole && row[r].open();
    }
    if (!whole) missing.push_back(node);
  }
  return missing;
}

Result<void> accept_nodes(Doorman* doorman, uint64_t session, Deadline deadline, Wiring& wiring) {
  Teller teller;
  while (true) {
    const auto missing = unlinked(wiring);
    if (missing.empty()) return {};
    if (steady_clock::now() >= deadline) {
      return error(ErrorCode::kDeadlineExceeded, "node(s) {} did not connect to node {} in {:.0f} s",
                   fmt::join(missing, ", "), wiring.node, teller.waited());
    }
    for (const int node : missing) {
      const Socket& link = wiring.nodes[static_cast<size_t>(node)];
      if (link.open() && closed_by_peer(link))
        return error(ErrorCode::kUnavailable, "node {} has gone while the nodes connected", node);
    }
    auto visitor = doorman->next(sooner(deadline, kLook));
    if (!visitor) continue;
    const auto bytes = receive_message(visitor->socket, kMaxGreeting, sooner(deadline, kWord));
    const auto greeting = bytes.ok() ? parse_greeting(*bytes) : Result<Greeting>(bytes.error());
    if (!greeting.ok() || !greeting->link) continue;
    Socket* place = place_of(*greeting->link, session, wiring);
    if (place != nullptr && !place->open()) *place = std::move(visitor->socket);
  }
}

// Node 0: who has come.
class Host {
 public:
  explicit Host(const RendezvousOptions& options)
      : options_(options), joined_(static_cast<size_t>(options.nodes)) {}

  Result<Wiring> meet(const Address& address) {
    const Deadline deadline = steady_clock::now() + options_.timeout;
    FATHOM_ASSIGN(const auto doorman, Doorman::open(address, options_.secret));
    LOG_INFO("node 0 of {}: listening for the others on {}", options_.nodes, doorman->address().text());
    FATHOM_TRY(gather(*doorman, deadline));

    Table table;
    const Nonce random = random_nonce();
    table.session = WireReader({random.data(), random.size()}).u64();
    table.nodes.push_back({"", 0, static_cast<uint32_t>(options_.ranks)});
    for (size_t n = 1; n < joined_.size(); ++n)
      table.nodes.push_back({joined_[n]->address.host(), joined_[n]->join.port, joined_[n]->join.ranks});
    for (size_t n = 1; n < joined_.size(); ++n)
      FATHOM_TRY(send_message(joined_[n]->socket, encode(table), sooner(deadline, kWord)));
    Wiring wiring = make_wiring(options_, table.nodes);
    FATHOM_TRY(accept_nodes(doorman.get(), table.session, deadline, wiring));
    return wiring;
  }

 private:
  struct Joined {
    Socket socket;
    Address address;
    Join join;
  };

  Result<void> gather(Doorman& doorman, Deadline deadline) {
    Teller teller;
    while (true) {
      drop_lost();
      const auto missing = absent();
      if (missing.empty()) return {};
      const std::string awaited = fmt::format("node{} {} of {}", missing.size() == 1 ? "" : "s",
                                              fmt::join(missing, ", "), options_.nodes);
      if (steady_clock::now() >= deadline) {
        Error late = error(ErrorCode::kDeadlineExceeded, "{} did not come to {} in {:.0f} s (--dist-timeout)",
                           awaited, doorman.address().text(), teller.waited());
        refuse_all(late.message);
        return late;
      }
      teller.tell(awaited);
      if (auto visitor = doorman.next(sooner(deadline, kLook))) FATHOM_TRY(receive(std::move(*visitor)));
    }
  }

  std::vector<size_t> absent() const {
    std::vector<size_t> missing;
    for (size_t n = 1; n < joined_.size(); ++n) {
      if (!joined_[n]) missing.push_back(n);
    }
    return missing;
  }

  void drop_lost() {
    for (size_t n = 1; n < joined_.size(); ++n) {
      if (!joined_[n] || !closed_by_peer(joined_[n]->socket)) continue;
      LOG_WARNING("node {} at {} has gone before all were there", n, joined_[n]->address.host());
      joined_[n].reset();
    }
  }

  Result<void> receive(Doorman::Visitor visitor) {
    const auto bytes = receive_message(visitor.socket, kMaxGreeting, steady_clock::now() + kWord);
    auto greeting = bytes.ok() ? parse_greeting(*bytes) : Result<Greeting>(bytes.error());
    if (!greeting.ok() || !greeting->join) {
      LOG_WARNING("{} connected and did not join: {}", visitor.address.text(),
                  greeting.ok() ? "it is of another start" : greeting.error().message);
      return {};
    }
    Join& join = *greeting->join;
    if (join.nodes != static_cast<uint32_t>(options_.nodes)) {
      return refuse(visitor, fmt::format("--nnodes: {} on node 0, {} on node {}", options_.nodes, join.nodes,
                                         join.node));
    }
    if (join.node == 0 || join.node >= join.nodes)
      return refuse(visitor, fmt::format("--node-rank {}: of {} nodes", join.node, join.nodes));
    auto& place = joined_[join.node];
    drop_lost();
    if (place) {
      // Not the end of the start: the one that was there first is in order.
      const std::string reason =
          fmt::format("--node-rank {}: it is taken, by {}", join.node, place->address.host());
      LOG_WARNING("refused {}: {}", visitor.address.text(), reason);
      (void)send_message(visitor.socket, encode(Table{.refusal = reason}), steady_clock::now() + kWord);
      return {};
    }
    if (const auto apart = differences(options_.facts, join.facts, join.node); !apart.empty())
      return refuse(visitor, "the nodes differ: " + apart);
    LOG_INFO("node {} has come from {}", join.node, visitor.address.host());
    place = Joined{std::move(visitor.socket), visitor.address, std::move(join)};
    return {};
  }

  // Ends the start on all nodes.
  Error refuse(Doorman::Visitor& visitor, const std::string& reason) {
    (void)send_message(visitor.socket, encode(Table{.refusal = reason}), steady_clock::now() + kWord);
    refuse_all(reason);
    return {ErrorCode::kInvalidArgument, reason};
  }
  void refuse_all(const std::string& reason) {
    for (auto& joined : joined_) {
      if (joined)
        (void)send_message(joined->socket, encode(Table{.refusal = reason}), steady_clock::now() + kWord);
    }
  }

  const RendezvousOptions& options_;
  std::vector<std::optional<Joined>> joined_;  // [node]
};

// A connection to node 0, as soon as it listens.
Result<Socket> reach_host(const RendezvousOptions& options, Deadline deadline) {
  Teller teller;
  while (true) {
    // Asked anew each time: names come to be while a cluster starts.
    const auto address = resolve(options.address);
    auto socket =
        address.ok() ? connect_to(*address, sooner(deadline, kWord)) : Result<Socket>(address.error());
    Result<void> proved;
    if (socket.ok()) {
      proved = prove_as_guest(*socket, options.secret, sooner(deadline, kWord));
      if (proved.ok()) return socket;
      const ErrorCode code = proved.error().code;
      if (code == ErrorCode::kUnauthorized || code == ErrorCode::kUnsupported)
        return proved.error().with_context("node 0 at " + options.address);
    }
    const Error& why = socket.ok() ? proved.error() : socket.error();
    if (steady_clock::now() + kRetry >= deadline) {
      return error(ErrorCode::kDeadlineExceeded,
                   "node 0 at {} did not answer in {:.0f} s (--dist-timeout): {}", options.address,
                   teller.waited(), why.message);
    }
    teller.tell("node 0 at " + options.address);
    std::this_thread::sleep_for(kRetry);
  }
}

Result<Table> await_table(const Socket& host, Deadline deadline) {
  Teller teller;
  while (!readable(host, sooner(deadline, kTelling))) {
    if (steady_clock::now() >= deadline) {
      return error(ErrorCode::kDeadlineExceeded, "not all nodes came in {:.0f} s (--dist-timeout)",
                   teller.waited());
    }
    teller.tell("the other nodes");
  }
  const auto bytes = receive_message(host, kMaxGreeting, steady_clock::now() + kWord);
  if (bytes.ok()) return parse_table(*bytes);
  return bytes.error().with_context("node 0 has gone before all were there");
}

Result<Wiring> join(const RendezvousOptions& options) {
  const Deadline deadline = steady_clock::now() + options.timeout;
  FATHOM_ASSIGN(const Socket host, reach_host(options, deadline));
  const Address reached = peer_address(host);
  std::unique_ptr<Doorman> doorman;
  Join join{.node = static_cast<uint32_t>(options.node),
            .nodes = static_cast<uint32_t>(options.nodes),
            .ranks = static_cast<uint32_t>(options.ranks),
            .port = 0,
            .facts = options.facts};
  if (options.node + 1 < options.nodes) {
    Address mine = local_address(host);
    mine.set_port(0);
    FATHOM_ASSIGN(doorman, Doorman::open(mine, options.secret));
    join.port = doorman->address().port();
  }
  FATHOM_TRY(send_message(host, encode(Greeting{.join = join}), sooner(deadline, kWord)));
  FATHOM_ASSIGN(const Table table, await_table(host, deadline));
  if (!table.refusal.empty()) return Error{ErrorCode::kInvalidArgument, table.refusal};
  const auto mine = static_cast<size_t>(options.node);
  if (table.nodes.size() != static_cast<size_t>(options.nodes) ||
      table.nodes[mine].ranks != static_cast<uint32_t>(options.ranks))
    return error(ErrorCode::kInternal, "node 0 sent the table of another world");

  Wiring wiring = make_wiring(options, table.nodes);
  wiring.hosts[0] = reached.host();
  for (int lower = 0; lower < options.node; ++lower) {
    Address address = reached;
    if (lower > 0) {
      const auto& node = table.nodes[static_cast<size_t>(lower)];
      FATHOM_ASSIGN(address, resolve(node.host.find(':') == std::string::npos
                                         ? fmt::format("{}:{}", node.host, node.port)
                                         : fmt::format("[{}]:{}", node.host, node.port)));
    }
    const auto linked = connect_node(options, address, table.session, lower, deadline, wiring);
    if (!linked.ok())
      return linked.error().with_context(fmt::format("connecting to node {} at {}", lower, address.text()));
  }
  FATHOM_TRY(accept_nodes(doorman.get(), table.session, deadline, wiring));
  return wiring;
}

}  // namespace

Result<Wiring> meet_nodes(const RendezvousOptions& options) {
  FATHOM_CHECK(options.nodes >= 1 && options.node >= 0 && options.node < options.nodes && options.ranks >= 1,
               "node {} of {} with {} ranks", options.node, options.nodes, options.ranks);
  auto address = resolve(options.address);
  if (!address.ok() && (options.node == 0 || address.error().code == ErrorCode::kInvalidArgument))
    return address.error().with_context("--dist-init-addr");
  const bool loopback = address.ok() && address->loopback();
  if (options.secret.empty() ? !loopback : options.secret.size() < kMinSecret) {
    return error(
        ErrorCode::kInvalidArgument,
        "--dist-init-addr {}: nodes on a network need a secret of {} bytes or more that all of them know: "
        "give it by --dist-secret-file FILE or in FATHOM_DIST_SECRET (got {} bytes)",
        options.address, kMinSecret, options.secret.size());
  }
  return options.node == 0 ? Host(options).meet(*address) : join(options);
}

}  // namespace fathom::dist
