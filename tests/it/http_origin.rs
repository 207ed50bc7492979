//! Whom a gateway without tokens takes for this machine: no proxy's client, and no page of another site.

use http_body_util::BodyExt;
use stubborn::gateway::GatewaySettings;
use stubborn::{Body, Limits};

use crate::support::http::{Http, exchange, get, start, started, status};
use crate::support::run;

const LISTING: &str = "/client/v4/accounts/any/workers/durable_objects/namespaces";
const INSPECTOR: &str = "/_stubborn/api/namespaces";

#[test]
fn who_comes_by_a_proxy_on_this_machine_is_not_taken_for_it() {
    run(async {
        let trusting = GatewaySettings::default().trust("127.0.0.1".parse().unwrap());
        let (_direct_server, direct) = started().await;
        let (_behind_server, behind) = start(Limits::default(), trusting).await;
        for (address, header, code) in [
            (&direct, None, 200),
            (&direct, Some(("x-forwarded-for", "9.9.9.9")), 403),
            (&direct, Some(("x-forwarded-proto", "https")), 403),
            (&direct, Some(("forwarded", "for=9.9.9.9")), 403),
            (&direct, Some(("x-real-ip", "9.9.9.9")), 403),
            (&direct, Some(("via", "1.1 front")), 403),
            (&behind, None, 403),
        ] {
            for path in [LISTING, INSPECTOR, "/_stubborn/"] {
                let answer = get(address, path, header.as_slice()).await;
                assert_eq!(answer.status(), code, "{path} {header:?}");
                let data = code == 200 && path != "/_stubborn/";
                assert_eq!(answer.text.contains("COUNTER"), data, "{path} {header:?}");
            }
            let failed = get(address, "/MIRROR/m/fail?failed", header.as_slice()).await;
            assert_eq!(failed.text.contains("secret"), code == 200, "{header:?}: {}", failed.text);
        }
    });
}

#[test]
fn the_listing_is_as_well_guarded_as_the_inspector() {
    run(async {
        let (_server, address) = started().await;
        for path in [LISTING, INSPECTOR] {
            for (site, code) in [("same-origin", 200), ("none", 200), ("same-site", 403)] {
                let answer = get(&address, path, &[("sec-fetch-site", site)]).await;
                assert_eq!(answer.status(), code, "{path} {site}");
                for (name, value) in [
                    ("cache-control", "no-store"),
                    ("x-content-type-options", "nosniff"),
                    ("cross-origin-resource-policy", "same-origin"),
                ] {
                    assert_eq!(answer.header(name), Some(value), "{path} {site}");
                }
            }
        }
    });
}

#[test]
fn a_page_of_another_site_reaches_no_object_of_this_machine() {
    run(async {
        let (_server, address) = started().await;
        let open = GatewaySettings::default().allow_origin("http://app.example");
        let (_open_server, open) = start(Limits::default(), open).await;
        let (_token_server, token) =
            start(Limits::default(), GatewaySettings::default().api_token("one")).await;
        let cross: &[_] = &[("sec-fetch-site", "cross-site")];
        let app: &[_] = &[("sec-fetch-site", "cross-site"), ("origin", "http://app.example")];
        let rebound: &[_] = &[("host", "evil.example")];
        for (address, headers, code) in [
            (&address, &[][..], 200),
            (&address, cross, 403),
            (&address, app, 403),
            (&address, rebound, 403),
            (&open, app, 200),
            (&open, cross, 403),
            (&token, cross, 200),
            (&token, rebound, 200),
        ] {
            for path in ["/COUNTER/c/", "/"] {
                assert_eq!(get(address, path, headers).await.status(), code, "{path} {headers:?}");
            }
        }
    });
}

#[test]
fn a_web_socket_of_a_page_of_another_site_is_refused() {
    run(async {
        let (_server, address) = started().await;
        let told = GatewaySettings::default().api_token("one").allow_origin("http://app.example");
        let (_told_server, told) = start(Limits::default(), told).await;
        for (address, origin, code) in [
            (&address, None, 101),
            (&address, Some("http://localhost:3000"), 101),
            (&address, Some("http://evil.example"), 403),
            (&address, Some("null"), 403),
            (&told, None, 101),
            (&told, Some("http://app.example"), 101),
            (&told, Some("http://evil.example"), 403),
        ] {
            let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
            let close = "\u{1}\u{2}\u{3}\u{4}";
            let request = format!(
                "GET /ROOM/r/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}\r\n"
            );
            // What is no frame ends a WebSocket.
            let answer = exchange(address, request + close).await;
            assert_eq!(status(&answer), code, "{origin}: {answer}");
        }
    });
}

#[test]
fn the_demonstration_lends_nobody_its_site_or_its_way_to_what_is_private() {
    run(async {
        let (_server, address) = started().await;
        let mut http = Http::one(&address).await;
        let page = Body::from("<script>alert(1)</script>");
        http.ask_with("PUT", "/KV/k/page", page).await;
        for path in ["/KV/k/page", "/KV/k/none", "/KV/k/"] {
            let answer = http.ask("GET", path).await;
            assert_eq!(answer.header("content-security-policy"), Some("sandbox"), "{path}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        }
        for (namespace, code) in [("HIDDEN", 403), ("KV", 403), ("PROBE", 200)] {
            let path = format!("/PROBE/p/call?namespace={namespace}&name=x&url=http://do/whoami");
            assert_eq!(http.ask("GET", &path).await.status(), code, "{namespace}");
        }
    });
}

#[test]
fn our_own_messages_are_told_wherever_the_gateway_listens() {
    run(async {
        let hidden = GatewaySettings::default().error_messages(false);
        let (_server, address) = start(Limits::default(), hidden).await;
        let Http::Two(mut sender) = Http::two(&address).await else { return };
        let request = http::Request::get("http://localhost/COUNTER/id:0").body(Body::empty());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&told).contains("message"), "{told:?}");
    });
}

#[test]
fn a_server_with_an_empty_token_does_not_start() {
    run(async {
        let settings = GatewaySettings::default().api_token("");
        let builder = stubborn::demo::namespaces(stubborn::Server::builder());
        let started = builder.gateway(settings).http("127.0.0.1:0").unwrap().start().await;
        assert!(started.err().is_some_and(|error| error.message.contains("empty")));
    });
}
