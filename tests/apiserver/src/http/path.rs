//! Reading request paths.

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path<'p> {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(&'p str),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources(&'p str, &'p str),
    /// Objects.
    Objects(Objects<'p>),
    /// Anything else.
    Other,
}

/// A path below a group and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objects<'p> {
    /// API group.
    pub group: &'p str,
    /// Version.
    pub version: &'p str,
    /// Plural name.
    pub plural: &'p str,
    /// Namespace, or empty.
    pub namespace: &'p str,
    /// Name, or empty.
    pub name: &'p str,
    /// Subresource, or empty.
    pub subresource: &'p str,
}

/// Parses a path.
pub(crate) fn parse(path: &str) -> Path<'_> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["api"] => Path::CoreVersions,
        ["apis"] => Path::Groups,
        ["apis", group] => Path::Group(group),
        ["api", version] => Path::Resources("", version),
        ["apis", group, version] => Path::Resources(group, version),
        ["api", version, rest @ ..] => objects("", version, rest),
        ["apis", group, version, rest @ ..] => objects(group, version, rest),
        _ => Path::Other,
    }
}

fn objects<'p>(group: &'p str, version: &'p str, rest: &[&'p str]) -> Path<'p> {
    // `namespaces/x` is the namespace itself and so are its own subresources.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] | ["namespaces", _] | ["namespaces"] => ("", rest),
        ["namespaces", namespace, below @ ..] => (*namespace, below),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Path::Other,
    };
    Path::Objects(Objects { group, version, plural, namespace, name, subresource })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects_of(path: &str) -> Objects<'_> {
        match parse(path) {
            Path::Objects(objects) => objects,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_both_a_resource_and_a_scope() {
        assert_eq!(objects_of("/api/v1/namespaces/a").name, "a");
        assert_eq!(objects_of("/api/v1/namespaces/a/status").subresource, "status");
        let service = objects_of("/api/v1/namespaces/a/services/b/status");
        assert_eq!(
            (service.namespace, service.plural, service.name, service.subresource),
            ("a", "services", "b", "status")
        );
        let peers = objects_of("/apis/bgp.purelb.io/v1/bgppeers");
        assert_eq!(
            (peers.group, peers.version, peers.plural, peers.namespace),
            ("bgp.purelb.io", "v1", "bgppeers", "")
        );
    }
}
