//! The table of routes: what exists, and who may.
//!
//! The guard asks this table before anything else happens; a route that is not in it does not exist.

use hyper::Method;
use runlet_core::token::Role;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Anyone,
    /// Everybody who can sign: the handler checks it.
    Signed,
    /// Whoever has this role.
    Role(Role),
    /// Whoever has this role, and CI systems for their own jobs: the handler sees to that.
    RoleOrCi(Role),
    /// Who may see the figures of the whole server: the operator's people, or everybody if the configuration says so.
    Operator,
}

/// A route. In the pattern `{x}` stands for one segment and `{x..}` for one or more.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub pattern: &'static str,
    /// Who may use it.
    pub access: Access,
}

/// What the table says about a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is this route.
    Route(&'static Route),
    /// The path exists, for these methods.
    OtherMethod(String),
    /// There is no such path.
    Nothing,
}

const fn route(method: Method, pattern: &'static str, access: Access) -> Route {
    Route { method, pattern, access }
}

const VIEWER: Access = Access::Role(Role::Viewer);
const INVOKER: Access = Access::Role(Role::Invoker);
const DEPLOYER: Access = Access::Role(Role::Deployer);
const VIEWER_CI: Access = Access::RoleOrCi(Role::Viewer);
const INVOKER_CI: Access = Access::RoleOrCi(Role::Invoker);
const DEPLOYER_CI: Access = Access::RoleOrCi(Role::Deployer);
const ADMIN: Access = Access::Role(Role::Admin);

/// Every route.
pub(crate) static ROUTES: [Route; 53] = [
    route(Method::GET, "/healthz", Access::Anyone),
    route(Method::GET, "/metrics", Access::Operator),
    route(Method::POST, "/hooks/{path..}", Access::Signed),
    route(Method::GET, "/v1/openapi.json", Access::Anyone),
    route(Method::GET, "/v1/functions", VIEWER),
    route(Method::GET, "/v1/functions/{name}", VIEWER),
    route(Method::PUT, "/v1/functions/{name}", DEPLOYER),
    route(Method::DELETE, "/v1/functions/{name}", DEPLOYER),
    route(Method::POST, "/v1/functions/{name}/invocations", INVOKER),
    route(Method::GET, "/v1/functions/{name}/revisions", VIEWER),
    route(Method::POST, "/v1/functions/{name}/rollback", DEPLOYER),
    route(Method::GET, "/v1/functions/{name}/settings", VIEWER),
    route(Method::PATCH, "/v1/functions/{name}/settings", DEPLOYER),
    route(Method::GET, "/v1/functions/{name}/aliases", VIEWER),
    route(Method::GET, "/v1/functions/{name}/aliases/{alias}", VIEWER),
    route(Method::PUT, "/v1/functions/{name}/aliases/{alias}", DEPLOYER),
    route(Method::DELETE, "/v1/functions/{name}/aliases/{alias}", DEPLOYER),
    route(Method::GET, "/v1/invocations/{id}", VIEWER_CI),
    route(Method::GET, "/v1/invocations/{id}/result", VIEWER),
    route(Method::GET, "/v1/invocations/{id}/payload", VIEWER),
    route(Method::GET, "/v1/invocations/{id}/explain", VIEWER),
    route(Method::POST, "/v1/invocations/{id}/cancel", INVOKER_CI),
    route(Method::POST, "/v1/invocations/{id}/rerun", INVOKER),
    route(Method::GET, "/v1/dead_letters", VIEWER),
    route(Method::POST, "/v1/dead_letters/redrive", INVOKER),
    route(Method::POST, "/v1/dead_letters/{id}/redrive", INVOKER),
    route(Method::DELETE, "/v1/dead_letters/{id}", INVOKER),
    route(Method::GET, "/v1/callbacks", VIEWER),
    route(Method::GET, "/v1/callbacks/{id}", VIEWER),
    route(Method::POST, "/v1/callbacks/{id}/retry", INVOKER),
    route(Method::POST, "/v1/callbacks/{id}/cancel", INVOKER),
    route(Method::GET, "/v1/executions", VIEWER_CI),
    route(Method::GET, "/v1/executions/{id}", VIEWER_CI),
    route(Method::GET, "/v1/executions/{id}/logs", VIEWER_CI),
    route(Method::GET, "/v1/deliveries", VIEWER),
    route(Method::GET, "/v1/deliveries/{id}", VIEWER),
    route(Method::GET, "/v1/deliveries/{id}/body", VIEWER),
    route(Method::GET, "/v1/tokens", ADMIN),
    route(Method::POST, "/v1/tokens", ADMIN),
    route(Method::DELETE, "/v1/tokens/{id}", ADMIN),
    route(Method::GET, "/v1/leases", DEPLOYER_CI),
    route(Method::POST, "/v1/leases", DEPLOYER_CI),
    route(Method::GET, "/v1/leases/{id}", DEPLOYER_CI),
    route(Method::DELETE, "/v1/leases/{id}", DEPLOYER_CI),
    route(Method::POST, "/v1/leases/{id}/renew", DEPLOYER_CI),
    route(Method::POST, "/v1/leases/{id}/exec", DEPLOYER_CI),
    route(Method::GET, "/v1/triggers", VIEWER),
    route(Method::GET, "/v1/triggers/{id}", VIEWER),
    route(Method::GET, "/v1/triggers/{id}/ticks", VIEWER),
    route(Method::POST, "/v1/triggers/{id}/pause", DEPLOYER),
    route(Method::POST, "/v1/triggers/{id}/resume", DEPLOYER),
    route(Method::GET, "/v1/capacity", VIEWER_CI),
    route(Method::GET, "/v1/history/size", ADMIN),
];

/// Looks a request up.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    // The wanted method first: a request that finds its row compares few others.
    let its_own = ROUTES.iter().find(|route| route.method == *method && matches(route.pattern, path));
    if let Some(route) = its_own {
        return Found::Route(route);
    }
    let others: Vec<&str> =
        ROUTES.iter().filter(|route| matches(route.pattern, path)).map(|route| route.method.as_str()).collect();
    if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others.join(", ")) }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut have = path.split('/');
    for want in pattern.split('/') {
        match have.next() {
            None => return false,
            Some("") if want.starts_with('{') => return false,
            Some(_) if want.ends_with("..}") => return true,
            Some(segment) if want.starts_with('{') || want == segment => {}
            Some(_) => return false,
        }
    }
    have.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_row() {
        let row = |method: Method, path: &str| match find(&method, path) {
            Found::Route(route) => route.pattern.to_owned(),
            Found::OtherMethod(allow) => format!("405 {allow}"),
            Found::Nothing => "404".to_owned(),
        };
        assert_eq!(row(Method::GET, "/v1/functions"), "/v1/functions");
        assert_eq!(row(Method::GET, "/v1/functions/"), "404");
        assert_eq!(row(Method::PUT, "/v1/functions/a"), "/v1/functions/{name}");
        assert_eq!(row(Method::POST, "/v1/functions/a"), "405 GET, PUT, DELETE");
        assert_eq!(row(Method::POST, "/v1/functions//invocations"), "404");
        assert_eq!(row(Method::POST, "/hooks/a"), "/hooks/{path..}");
        assert_eq!(row(Method::POST, "/hooks/a/b/c"), "/hooks/{path..}");
        assert_eq!(row(Method::GET, "/hooks/a"), "405 POST");
        assert_eq!(row(Method::POST, "/hooks/"), "404");
        assert_eq!(row(Method::POST, "/hooks"), "404");
        assert_eq!(row(Method::GET, "/"), "404");
        assert_eq!(row(Method::GET, "/v1/functions/a/b/c"), "404");
    }

    #[test]
    fn who_may_what_is_as_documented() {
        let role = |role: Option<Role>, route: &Route| match (route.access, role) {
            (Access::Anyone | Access::Signed, _) => true,
            (Access::Role(need), Some(have)) => have.includes(need),
            (Access::RoleOrCi(need), Some(have)) => have.includes(need) || have == Role::Ci,
            (Access::Operator, Some(have)) => have.includes(Role::Viewer),
            (Access::Role(_) | Access::RoleOrCi(_) | Access::Operator, None) => false,
        };
        let table: Vec<String> = ROUTES
            .iter()
            .map(|route| {
                let mut who: Vec<&str> = if role(None, route) { vec!["everybody"] } else { Vec::new() };
                who.extend(Role::ALL.into_iter().filter(|have| role(Some(*have), route)).map(Role::as_str));
                format!("{:<6} {:<38} {}", route.method.as_str(), route.pattern, who.join(" "))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
