//! Where requests lead: which namespaces are exposed, and which hosts lead to one.
//!
//! **Invariant:** a host that has a route is its object's alone: no path on it leads anywhere else.

use std::collections::{BTreeMap, HashMap};

use super::settings::HostRoute;
use crate::error::{Error, Result};
use crate::runtime::Namespaces;

/// Where requests lead.
#[derive(Debug, Default)]
pub(super) struct Routes {
    exposed: BTreeMap<String, usize>,
    hosts: HashMap<String, (usize, String)>,
    suffixes: HashMap<String, usize>,
}

/// The object that a host leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Routed {
    /// The namespace's number.
    pub(super) namespace: usize,
    /// The object's name.
    pub(super) name: String,
}

impl Routes {
    /// Finds the namespaces that are named.
    ///
    /// # Errors
    /// *no such namespace*; *invalid request* where two routes have one host, or one leads to no object.
    pub(super) fn new(
        namespaces: &Namespaces,
        exposed: &[String],
        routes: &[HostRoute],
    ) -> Result<Self> {
        let mut all = Self::default();
        for name in exposed {
            all.exposed.insert(name.clone(), namespaces.find(name)?);
        }
        for route in routes {
            let namespace = namespaces.find(&route.namespace)?;
            if route.wild != route.name.is_empty() {
                let wrong =
                    if route.wild { "its first label is the name" } else { "it needs a name" };
                return Err(Error::invalid_request(format!("the route {route:?}: {wrong}")));
            }
            let known = match route.wild {
                true => all.suffixes.insert(route.host.clone(), namespace).is_some(),
                false => {
                    let to = (namespace, route.name.clone());
                    all.hosts.insert(route.host.clone(), to).is_some()
                }
            };
            if known {
                return Err(Error::invalid_request(format!(
                    "two routes have the host of {route:?}"
                )));
            }
        }
        Ok(all)
    }

    /// Returns the number of a namespace that is exposed.
    pub(super) fn exposed(&self, name: &str) -> Option<usize> {
        self.exposed.get(name).copied()
    }

    /// Returns where a host leads that has a route.
    pub(super) fn host(&self, host: &str) -> Option<Routed> {
        if self.hosts.is_empty() && self.suffixes.is_empty() {
            return None;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Some((namespace, name)) = self.hosts.get(&host) {
            return Some(Routed { namespace: *namespace, name: name.clone() });
        }
        let (label, suffix) = host.split_once('.')?;
        let namespace = *self.suffixes.get(suffix).filter(|_| !label.is_empty())?;
        Some(Routed { namespace, name: label.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Counter;
    use crate::object::Class;
    use crate::runtime::NamespaceConfig;

    fn namespaces() -> Namespaces {
        let names = ["A", "B"];
        let all = names.map(|name| NamespaceConfig::new(name, Class::new::<Counter>(), name));
        Namespaces::new(all.into()).unwrap()
    }

    fn route(host: &str, namespace: &str, name: &str) -> HostRoute {
        host.parse::<HostRoute>().unwrap().to(namespace).named(name)
    }

    #[test]
    fn a_host_leads_to_its_object_and_a_suffix_to_the_one_that_the_first_label_names() {
        let routes = [route("chat.example", "A", "lobby"), route("*.chat.example", "B", "")];
        let routes = Routes::new(&namespaces(), &["B".into()], &routes).unwrap();
        for (host, leads) in [
            ("chat.example", Some((0, "lobby"))),
            ("CHAT.example.", Some((0, "lobby"))),
            ("ann.chat.example", Some((1, "ann"))),
            ("Ann.chat.example", Some((1, "ann"))),
            ("a.b.chat.example", None),
            (".chat.example", None),
            ("example", None),
            ("xchat.example", None),
            ("127.0.0.1", None),
        ] {
            let routed = leads.map(|(namespace, name)| Routed { namespace, name: name.into() });
            assert_eq!(routes.host(host), routed, "{host}");
        }
        assert_eq!((routes.exposed("A"), routes.exposed("B")), (None, Some(1)));
    }

    #[test]
    fn a_route_that_leads_nowhere_is_refused() {
        for routes in [
            vec![route("a.example", "C", "x")],
            vec![route("a.example", "A", "")],
            vec![route("*.example", "A", "x")],
            vec![route("a.example", "A", "x"), route("A.example", "B", "y")],
        ] {
            assert!(Routes::new(&namespaces(), &[], &routes).is_err(), "{routes:?}");
        }
        assert!(Routes::new(&namespaces(), &["C".into()], &[]).is_err());
    }
}
