// Listens on one address and lets in who knows the secret. Works inside next(), on the caller's thread: a
// stranger who connects and says nothing, or the wrong thing, holds nobody up and is sent away after a while.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>

#include "dist/handshake.h"
#include "dist/socket.h"

namespace fathom::dist {

class Doorman {
 public:
  struct Visitor {
    Socket socket;  // just after the proofs
    Address address;
  };

  static Result<std::unique_ptr<Doorman>> open(const Address& address, std::string secret);

  Address address() const { return local_address(listener_); }
  // The next who proved it; nothing at the deadline. Refusals are logged.
  std::optional<Visitor> next(Deadline deadline);

 private:
  struct Guest {
    Socket socket;
    Address address;
    HostHandshake handshake;
    Deadline deadline;
  };
  Doorman(Socket listener, std::string secret) : listener_(std::move(listener)), secret_(std::move(secret)) {}
  void accept_all();
  // False: it is to be sent away.
  bool talk(Guest& guest);

  Socket listener_;
  const std::string secret_;
  std::list<Guest> guests_;
};

}  // namespace fathom::dist
