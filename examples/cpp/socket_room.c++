// Talks in a room: socket_room ADDR NAME TEXT...
//
// Opens a WebSocket to the object NAME of the namespace ROOM, says each TEXT there, and prints what it hears,
// lines of JSON, until it has heard them all. ADDR is HOST:PORT or unix:PATH.

#include <capnp/ez-rpc.h>
#include <kj/async.h>

#include <iostream>

#include "stubborn.capnp.h"

namespace {

// The direction that this side receives.
class Heard final : public stubborn::WebSocket::Server {
 public:
  explicit Heard(uint wanted) : wanted(wanted) {
    if (wanted == 0) all.fulfiller->fulfill();
  }

  // Is done when as many messages were heard as wanted, or the WebSocket has ended.
  kj::Promise<void> heardAll() { return kj::mv(all.promise); }

  // Is done when the WebSocket has ended.
  kj::Promise<void> closed() { return kj::mv(end.promise); }

 protected:
  kj::Promise<void> sendText(SendTextContext context) override {
    auto message = kj::str(parts, context.getParams().getText());
    parts = kj::str();
    // How many are here is told as well, and does not count.
    if (!message.startsWith("{\"here\"")) {
      std::cout << message.cStr() << "\n";
      if (++count == wanted) all.fulfiller->fulfill();
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> sendPart(SendPartContext context) override {
    // The beginning of a message that is too large for one call.
    parts = kj::str(parts, context.getParams().getBytes().asChars());
    return kj::READY_NOW;
  }

  kj::Promise<void> close(CloseContext) override {
    all.fulfiller->fulfill();
    end.fulfiller->fulfill();
    return kj::READY_NOW;
  }

 private:
  uint wanted;
  uint count = 0;
  kj::String parts = kj::str();
  kj::PromiseFulfillerPair<void> all = kj::newPromiseAndFulfiller<void>();
  kj::PromiseFulfillerPair<void> end = kj::newPromiseAndFulfiller<void>();
};

}  // namespace

int main(int argc, char* argv[]) {
  if (argc < 3) {
    std::cerr << "usage: socket_room ADDR NAME TEXT...\n";
    return 2;
  }
  capnp::EzRpcClient client(argv[1]);
  auto& wait = client.getWaitScope();

  auto space = client.getMain<stubborn::Bootstrap>().namespaceRequest();
  space.setName("ROOM");
  auto named = space.send().getNamespace().getByNameRequest();
  named.setName(argv[2]);

  auto texts = kj::arrayPtr(argv + 3, argc - 3);
  auto heard = kj::heap<Heard>(texts.size());
  auto& told = *heard;
  auto fetch = named.send().getStub().fetchRequest();
  fetch.setUrl("http://do/?from=c%2B%2B&limit=0");
  auto upgrade = fetch.initHeaders(1)[0];
  upgrade.setName("upgrade");
  upgrade.setValue(kj::StringPtr("websocket").asBytes());
  fetch.setWebSocket(kj::mv(heard));
  auto answer = fetch.send().wait(wait);
  if (answer.isError()) {
    std::cerr << answer.getError().getMessage().cStr() << "\n";
    return 1;
  }
  std::cout << "opened: " << answer.getResponse().getStatus() << "\n";

  // Dropping this before `close` would be a lost link.
  auto socket = answer.getResponse().getWebSocket();
  for (const char* text : texts) {
    auto say = socket.sendTextRequest();
    say.setText(text);
    say.send().wait(wait);  // returns when there is room for more
  }
  told.heardAll().wait(wait);
  auto close = socket.closeRequest();
  close.setCode(1000);
  close.setReason("that was all");
  close.send().wait(wait);
  told.closed().wait(wait);
  std::cout << "closed\n";
}
