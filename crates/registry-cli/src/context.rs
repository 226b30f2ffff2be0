//! What a command works with: which server, which token, how to print.
use std::cell::{OnceCell, RefCell};

use registry_client::{Client, DEFAULT_SERVER, ServerUrl, Token};

use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::options::Options;

/// Where the token of a request came from: what to do when it is refused depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenOrigin {
    /// `--token` or `REGISTRY_TOKEN`.
    Given,
    /// `registry-cli login`.
    Saved,
    /// There is none.
    #[default]
    Nowhere,
}

/// The settings of one run.
pub struct Context {
    options: Options,
    /// The package that the command line names, if it names one.
    package: Option<String>,
    credentials: OnceCell<Credentials>,
    /// What was used, for the words of a failure.
    used: RefCell<Used>,
}

#[derive(Debug, Clone, Default)]
pub struct Used {
    pub server: Option<ServerUrl>,
    pub token: TokenOrigin,
}

impl Context {
    pub fn new(options: Options, package: Option<&str>) -> Self {
        Self { options, package: package.map(str::to_owned), credentials: OnceCell::new(), used: RefCell::default() }
    }

    pub fn json(&self) -> bool {
        self.options.json
    }

    pub fn package(&self) -> Option<&str> {
        self.package.as_deref()
    }

    pub fn used(&self) -> Used {
        self.used.borrow().clone()
    }

    /// `--server`, else `REGISTRY_SERVER`, else the server of the last login, else the default one.
    pub fn server(&self) -> Result<ServerUrl, Failure> {
        let server = match given(self.options.server.as_deref()) {
            Some(text) => text.parse()?,
            None => match self.credentials()?.last_server() {
                Some(server) => server,
                None => DEFAULT_SERVER.parse()?,
            },
        };
        self.used.borrow_mut().server = Some(server.clone());
        Ok(server)
    }

    /// `--token`, else `REGISTRY_TOKEN`.
    pub fn given_token(&self) -> Result<Option<Token>, Failure> {
        given(self.options.token.as_deref()).map(Token::new).transpose().map_err(Failure::from)
    }

    /// A client of the server with the token that is given or was saved for that server.
    pub fn client(&self) -> Result<Client, Failure> {
        let server = self.server()?;
        let (token, origin) = match self.given_token()? {
            Some(token) => (Some(token), TokenOrigin::Given),
            None => match self.credentials()?.token(&server)? {
                Some(token) => (Some(token), TokenOrigin::Saved),
                None => (None, TokenOrigin::Nowhere),
            },
        };
        self.used.borrow_mut().token = origin;
        self.client_of(server, token)
    }

    /// A client of this server with this token.
    pub fn client_of(&self, server: ServerUrl, token: Option<Token>) -> Result<Client, Failure> {
        let mut builder = Client::builder(server)
            .retries(self.options.retries)
            .user_agent(concat!("registry-cli/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = self.options.ca_cert.as_deref().filter(|path| !path.as_os_str().is_empty()) {
            let pem = std::fs::read(path).map_err(|source| Failure::file("read", path, source))?;
            builder = builder.extra_roots(&pem)?;
        }
        if let Some(token) = token {
            builder = builder.token(token);
        }
        Ok(builder.build()?)
    }

    fn credentials(&self) -> Result<&Credentials, Failure> {
        if let Some(credentials) = self.credentials.get() {
            return Ok(credentials);
        }
        let credentials = Credentials::load()?;
        Ok(self.credentials.get_or_init(|| credentials))
    }
}

/// An option that is set and not empty: an empty variable in the environment means that there is none.
fn given(option: Option<&str>) -> Option<&str> {
    option.filter(|text| !text.trim().is_empty())
}
