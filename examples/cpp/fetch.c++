// Calls an object: fetch ADDR NAMESPACE NAME URL
//
// Shows what the object answers; then an error of an object of the namespace PROBE, and a forged id, with
// their flags. ADDR is HOST:PORT or unix:PATH.

#include <capnp/ez-rpc.h>
#include <capnp/schema.h>

#include <iostream>

#include "stubborn.capnp.h"

namespace {

// Begins a call. Nothing is waited for.
capnp::RemotePromise<stubborn::Outcome> fetch(stubborn::Stub::Client stub, kj::StringPtr url) {
  auto call = stub.fetchRequest();
  call.setUrl(url);
  return call.send();
}

stubborn::Stub::Client getByName(stubborn::Namespace::Client space, kj::StringPtr name) {
  auto call = space.getByNameRequest();
  call.setName(name);
  return call.send().getStub();
}

stubborn::Stub::Client getById(stubborn::Namespace::Client space, kj::ArrayPtr<const kj::byte> id) {
  auto call = space.getRequest();
  call.setId(id);
  return call.send().getStub();
}

stubborn::Namespace::Client getNamespace(stubborn::Bootstrap::Client server, kj::StringPtr name) {
  auto call = server.namespaceRequest();
  call.setName(name);
  return call.send().getNamespace();
}

const char* kindName(stubborn::Error::Kind kind) {
  // The schema knows the names: `WRONG_NAMESPACE` is "wrongNamespace" there.
  auto enumerants = capnp::Schema::from<stubborn::Error::Kind>().getEnumerants();
  auto index = static_cast<uint>(kind);
  return index < enumerants.size() ? enumerants[index].getProto().getName().cStr() : "newer";
}

const char* text(bool flag) { return flag ? "true" : "false"; }

// Prints the answer, or the error: it is data, with flags to decide by.
void show(const char* what, stubborn::Outcome::Reader outcome) {
  if (outcome.isResponse()) {
    auto response = outcome.getResponse();
    auto body = response.getBody();
    // What does not fit inline is streamed: see examples/python for how to receive that.
    std::cout << what << ": " << response.getStatus() << " "
              << kj::str(body.getPrefix().asChars()).cStr() << (body.hasRest() ? "…" : "") << "\n";
    return;
  }
  auto error = outcome.getError();
  std::cout << what << ": " << kindName(error.getKind())
            << " remote=" << text(error.getRemote())
            << " retryable=" << text(error.getRetryable())
            << " overloaded=" << text(error.getOverloaded())
            << " reset=" << text(error.getReset())
            << " delivered=" << text(error.getDelivered())
            << ": " << error.getMessage().cStr() << "\n";
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 5) {
    std::cerr << "usage: fetch ADDR NAMESPACE NAME URL\n";
    return 2;
  }
  capnp::EzRpcClient client(argv[1]);
  auto& wait = client.getWaitScope();
  auto server = client.getMain<stubborn::Bootstrap>();

  // Nothing is waited for before the fetch: all of it costs one round trip.
  auto stub = getByName(getNamespace(server, argv[2]), argv[3]);
  show("fetched", fetch(stub, argv[4]).wait(wait));

  auto probe = getNamespace(server, "PROBE");
  show("thrown", fetch(getByName(probe, argv[3]), "http://do/throw?message=boom").wait(wait));
  const kj::byte forged[32] = {};
  show("forged", fetch(getById(probe, forged), "http://do/").wait(wait));
}
