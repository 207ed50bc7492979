"""Lists namespaces and objects with the platform's own API client, of which only the base URL is changed.

rest.py ADDR: the gateway of a server without a configuration. It makes 2,500 objects first.
"""

import http.client
import sys

import cloudflare

OBJECTS = 2500


def main(address):
    make_objects(address)
    client = cloudflare.Cloudflare(
        api_token="any", base_url=f"http://{address}/client/v4", max_retries=0
    )
    namespaces = list(client.durable_objects.namespaces.list(account_id="any"))
    names = [namespace.name for namespace in namespaces]
    assert names == ["COUNTER", "KV", "PROBE", "ROOM"], names
    assert all(len(one.id) == 32 and one.class_ and one.use_sqlite for one in namespaces)
    counter = namespaces[0]
    for limit in (1000, 100):
        page = client.durable_objects.namespaces.objects.list(
            counter.id, account_id="any", limit=limit
        )
        pages = list(page.iter_pages())
        objects = [one for page in pages for one in page.result]
        ids = {one.id for one in objects}
        assert len(objects) == len(ids) == OBJECTS, (len(objects), len(ids))
        assert all(isinstance(one.has_stored_data, bool) for one in objects)
        assert {one.name for one in objects} == {name(n) for n in range(OBJECTS)}
        assert len(pages) == OBJECTS // limit + (OBJECTS % limit > 0), len(pages)
    try:
        list(client.durable_objects.namespaces.objects.list("0" * 32, account_id="any"))
    except cloudflare.NotFoundError as error:
        missing = error.response.json()["errors"][0]["message"]
    print(f"{len(names)} namespaces, {len(objects)} objects; 0{{32}}: {missing[:9]}")


def name(n):
    return f"rest-{n}"


def make_objects(address):
    connection = http.client.HTTPConnection(address)
    for n in range(OBJECTS):
        connection.request("POST", f"/COUNTER/{name(n)}/")
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status


main(sys.argv[1])
