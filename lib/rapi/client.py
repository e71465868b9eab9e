"""Client of the remote API; stands alone and needs nothing but Python and pycurl.

    >>> client = GanetiRapiClient("cluster.example.com", username="me", password="secret",
    ...                           config_ssl_verification=CertAuthorityVerify("rapi.pem"))
    >>> client.GetInstances()

Certificates and host names are verified. Clusters usually have certificates of their own making:
copy the master's C{rapi.pem} (the certificate in it, without the key) and name it as above, or say
C{config_ssl_verification=NoVerification} where the network is trusted.

Answers that are no success raise L{GanetiApiError} with the server's words, or C{CertificateError}.
"""

from __future__ import annotations

import base64
import io
import json
import logging as _logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib import parse

import pycurl

GANETI_RAPI_PORT: Final = 5080
GANETI_RAPI_VERSION: Final = 2

HTTP_DELETE: Final = "DELETE"
HTTP_GET: Final = "GET"
HTTP_PUT: Final = "PUT"
HTTP_POST: Final = "POST"
HTTP_OK: Final = 200
HTTP_NOT_FOUND: Final = 404
HTTP_APP_JSON: Final = "application/json"

REPLACE_DISK_PRI: Final = "replace_on_primary"
REPLACE_DISK_SECONDARY: Final = "replace_on_secondary"
REPLACE_DISK_CHG: Final = "replace_new_secondary"
REPLACE_DISK_AUTO: Final = "replace_auto"

NODE_ROLE_DRAINED: Final = "drained"
NODE_ROLE_MASTER_CANDIDATE: Final = "master-candidate"
#: As it always was spelt.
NODE_ROLE_MASTER_CANDIATE: Final = NODE_ROLE_MASTER_CANDIDATE
NODE_ROLE_MASTER: Final = "master"
NODE_ROLE_OFFLINE: Final = "offline"
NODE_ROLE_REGULAR: Final = "regular"

NODE_EVAC_PRI: Final = "primary-only"
NODE_EVAC_SEC: Final = "secondary-only"
NODE_EVAC_ALL: Final = "all"

JOB_STATUS_QUEUED: Final = "queued"
JOB_STATUS_WAITING: Final = "waiting"
JOB_STATUS_CANCELING: Final = "canceling"
JOB_STATUS_RUNNING: Final = "running"
JOB_STATUS_CANCELED: Final = "canceled"
JOB_STATUS_SUCCESS: Final = "success"
JOB_STATUS_ERROR: Final = "error"
JOB_STATUS_FINALIZED: Final = frozenset([JOB_STATUS_CANCELED, JOB_STATUS_SUCCESS, JOB_STATUS_ERROR])

INST_CREATE_REQV1: Final = "instance-create-reqv1"
INST_REINSTALL_REQV1: Final = "instance-reinstall-reqv1"
NODE_MIGRATE_REQV1: Final = "node-migrate-reqv1"

USER_AGENT: Final = "Ganeti RAPI Client"

#: Seconds until the connection stands, and for a whole request.
CONNECT_TIMEOUT: Final = 10.0
REQUEST_TIMEOUT: Final = 120.0

#: What instance creation in the old format takes.
_FORMAT_0_NIC_FIELDS: Final = frozenset(["mac", "ip", "mode", "link", "bridge"])
_FORMAT_0_FIELDS: Final = frozenset(
    [
        "os",
        "pnode",
        "snode",
        "iallocator",
        "start",
        "ip_check",
        "name_check",
        "hypervisor",
        "file_storage_dir",
        "file_driver",
        "dry_run",
        "beparams",
        "hvparams",
    ]
)
_FORMAT_1_VERSION: Final = "__version__"


class Error(Exception):
    """Root of all errors of this module."""


class GanetiApiError(Error):
    """The request failed.

    @ivar code: HTTP status, None if there was no answer
    """

    def __init__(self, msg: str, code: int | None = None) -> None:
        super().__init__(msg)
        self.code = code


class CertificateError(GanetiApiError):
    """There is something wrong with the server's certificate, or with TLS."""


ConfigFn = Callable[[Any, Any], None]


class CertAuthorityVerify:
    """Accept servers with a certificate from these authorities (or with one of these itself)."""

    def __init__(
        self,
        cafile: str | None = None,
        capath: str | None = None,
        use_default_verify_paths: bool = False,
        verify_hostname: bool = True,
    ) -> None:
        """Choose whom to trust.

        @param cafile: file with certificates, PEM
        @param capath: directory with certificates, named by their hashes
        @param use_default_verify_paths: also trust whom this host trusts
        @param verify_hostname: must the certificate name the host that was connected to?
        """
        self._cafile = cafile
        self._capath = capath
        self._use_default = use_default_verify_paths
        self._verify_hostname = verify_hostname

    def __call__(self, curl: Any, logger: Any) -> None:
        """Configure a curl handle."""
        logger.debug("Trusting CA file %s, CA path %s", self._cafile, self._capath)
        curl.setopt(pycurl.SSL_VERIFYPEER, True)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2 if self._verify_hostname else 0)
        if not self._use_default:
            # Else curl's own list stays
            curl.unsetopt(pycurl.CAINFO)
            curl.unsetopt(pycurl.CAPATH)
        if self._cafile:
            curl.setopt(pycurl.CAINFO, self._cafile)
        if self._capath:
            curl.setopt(pycurl.CAPATH, self._capath)


def NoVerification(curl: Any, logger: Any) -> None:
    """Accept any certificate: whoever is between us and the cluster can read and change it all."""
    logger.warning("Certificates are not verified")
    curl.setopt(pycurl.SSL_VERIFYPEER, False)
    curl.setopt(pycurl.SSL_VERIFYHOST, 0)


def GenericCurlConfig(
    verbose: bool = False,
    use_signal: bool = False,
    use_curl_cabundle: bool = False,
    cafile: str | None = None,
    capath: str | None = None,
    proxy: str | None = None,
    verify_hostname: bool = False,
    connect_timeout: int | None = None,
    timeout: int | None = None,
) -> ConfigFn:
    """A function that configures curl handles, as clients of later versions make it."""

    def _Configure(curl: Any, logger: Any) -> None:
        curl.setopt(pycurl.VERBOSE, verbose)
        curl.setopt(pycurl.NOSIGNAL, not use_signal)
        if use_curl_cabundle or cafile or capath:
            CertAuthorityVerify(cafile, capath, use_curl_cabundle, verify_hostname)(curl, logger)
        else:
            NoVerification(curl, logger)
        if proxy is not None:
            curl.setopt(pycurl.PROXY, proxy)
        if connect_timeout is not None:
            curl.setopt(pycurl.CONNECTTIMEOUT, connect_timeout)
        if timeout is not None:
            curl.setopt(pycurl.TIMEOUT, timeout)

    return _Configure


def FormatX509Name(name: Any) -> str:
    """A subject or issuer as C{/K=V/K=V}.

    @param name: with C{get_components()}, such as pyOpenSSL's, or a list of (key, value)
    """
    components = name.get_components() if hasattr(name, "get_components") else name

    def _Text(value: str | bytes) -> str:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    return "".join(f"/{_Text(key)}={_Text(value)}" for key, value in components)


class Transport(Protocol):
    """Carries one request."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises GanetiApiError if there is none."""


#: Errors of curl that have to do with certificates or TLS.
_TLS_ERRORS: Final = frozenset(
    getattr(pycurl, name)
    for name in (
        "E_SSL_CONNECT_ERROR",
        "E_SSL_CERTPROBLEM",
        "E_SSL_CIPHER",
        "E_SSL_CACERT",
        "E_PEER_FAILED_VERIFICATION",
        "E_SSL_CACERT_BADFILE",
        "E_SSL_ISSUER_ERROR",
    )
    if hasattr(pycurl, name)
)


class CurlTransport:
    """Requests by curl; one handle, so that what can be reused is."""

    def __init__(
        self,
        config_fn: ConfigFn | None,
        ignore_proxy: bool,
        logger: Any,
        curl_factory: Callable[[], Any] = pycurl.Curl,
    ) -> None:
        """Prepare to send.

        @param config_fn: configures the handle last of all
        """
        self._curl = curl_factory()
        self._curl.setopt(pycurl.NOSIGNAL, True)
        self._curl.setopt(pycurl.FOLLOWLOCATION, False)
        self._curl.setopt(pycurl.SSL_VERIFYPEER, True)
        self._curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        self._curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_TIMEOUT * 1000))
        self._curl.setopt(pycurl.TIMEOUT_MS, int(REQUEST_TIMEOUT * 1000))
        if ignore_proxy:
            self._curl.setopt(pycurl.NOPROXY, "*")
        if config_fn is not None:
            config_fn(self._curl, logger)

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Send a request; status and body of the answer."""
        answer = io.BytesIO()
        curl = self._curl
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.CUSTOMREQUEST, method)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
        curl.setopt(pycurl.POSTFIELDS, body or b"")
        curl.setopt(pycurl.WRITEFUNCTION, answer.write)
        try:
            curl.perform()
        except pycurl.error as err:
            code, text = err.args
            if code in _TLS_ERRORS:
                raise CertificateError(f"Problem with the TLS connection to {url}: {text}") from err
            raise GanetiApiError(f"No answer from {url}: {text}") from err
        return int(curl.getinfo(pycurl.RESPONSE_CODE)), answer.getvalue()


def _EncodeQuery(query: Sequence[tuple[str, Any]]) -> str:
    """A query string; None is an empty value, a boolean 0 or 1."""
    result = []
    for name, value in query:
        if value is None:
            text = ""
        elif isinstance(value, bool):
            text = str(int(value))
        elif isinstance(value, (list, tuple, dict)):
            raise ValueError(f"Invalid value {value!r} for the query argument {name}")
        else:
            text = str(value)
        result.append((name, text))
    return parse.urlencode(result)


def _FormatHost(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


Query = list[tuple[str, Any]]


class GanetiRapiClient:
    """The API as methods.

    Names of instances and nodes may be UUIDs. Methods that change something return the id of a job,
    unless they say otherwise; C{reason} is a text that is kept with the job. Not for use by several
    threads at once.
    """

    def __init__(
        self,
        host: str,
        port: int = GANETI_RAPI_PORT,
        username: str | None = None,
        password: str | None = None,
        config_ssl_verification: ConfigFn | None = None,
        ignore_proxy: bool = False,
        logger: Any = _logging,
        curl_config_fn: ConfigFn | None = None,
        curl_factory: Callable[[], Any] | None = None,
        *,
        transport: Transport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        @param config_ssl_verification: configures what to trust, such as a L{CertAuthorityVerify},
            or L{NoVerification}; None = whom this host trusts
        @param ignore_proxy: do not use the proxies of the environment
        @param curl_config_fn: the same as config_ssl_verification, by its later name
        @param transport: carries the requests; None = curl
        @raise Error: one of user name and password without the other
        """
        if (username is None) != (password is None):
            missing = "user name" if username is None else "password"
            raise Error(f"The {missing} is missing: give both or neither")
        self._base_url = f"https://{_FormatHost(host)}:{port}"
        self._headers = {
            "Accept": HTTP_APP_JSON,
            "Content-type": HTTP_APP_JSON,
            "User-Agent": USER_AGENT,
            # Saves a second of waiting for a word that need not come
            "Expect": "",
        }
        if username is not None:
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {credentials}"
        self._logger = logger
        self._sleep = sleep
        self._transport: Transport = transport or CurlTransport(
            config_ssl_verification or curl_config_fn,
            ignore_proxy,
            logger,
            curl_factory or pycurl.Curl,
        )

    def _SendRequest(
        self, method: str, path: str, query: Query | None = None, content: Any = None
    ) -> Any:
        """Send a request; the JSON value of the answer, None for an empty one.

        @raise GanetiApiError: there is no answer, or it is no success
        """
        if not path.startswith("/"):
            raise ValueError(f"The path {path!r} must start with a slash")
        url = self._base_url + path
        if query:
            url += "?" + _EncodeQuery(query)
        body = None
        # A False or a 0 is something to say, nothing is not
        if content is not None:
            body = json.dumps(content, sort_keys=True).encode("ascii")
        self._logger.debug("Sending %s %s", method, url)
        status, data = self._transport(method, url, self._headers, body)
        try:
            answer = json.loads(data) if data.strip() else None
        except ValueError as err:
            if status == HTTP_OK:
                raise GanetiApiError(f"The answer to {method} {path} is not JSON", status) from err
            answer = None
        if status != HTTP_OK:
            raise GanetiApiError(_FormatError(status, answer), status)
        return answer

    def _Job(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        content: Any = None,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Any:
        """Send a request that makes a job."""
        query = list(query or [])
        if dry_run:
            query.append(("dry-run", 1))
        if reason:
            query.append(("reason", reason))
        return self._SendRequest(method, path, query, content)

    @staticmethod
    def _Instance(instance: str, rest: str = "") -> str:
        return f"/{GANETI_RAPI_VERSION}/instances/{instance}{rest}"

    @staticmethod
    def _Node(node: str, rest: str = "") -> str:
        return f"/{GANETI_RAPI_VERSION}/nodes/{node}{rest}"

    # The cluster

    def GetVersion(self) -> int:
        """Version of the API."""
        version: int = self._SendRequest(HTTP_GET, "/version")
        return version

    def GetFeatures(self) -> list[str]:
        """Optional features of the server."""
        try:
            features: list[str] = self._SendRequest(HTTP_GET, "/2/features")
        except GanetiApiError as err:
            # Very old servers
            if err.code == HTTP_NOT_FOUND:
                return []
            raise
        return features

    def GetOperatingSystems(self, reason: str | None = None) -> list[str]:
        """Operating systems that can be installed."""
        oses: list[str] = self._Job(HTTP_GET, "/2/os", reason=reason)
        return oses

    def GetInfo(self, reason: str | None = None) -> dict[str, Any]:
        """Parameters of the cluster."""
        info: dict[str, Any] = self._Job(HTTP_GET, "/2/info", reason=reason)
        return info

    def RedistributeConfig(self, reason: str | None = None) -> Any:
        """Send the configuration to all nodes again."""
        return self._Job(HTTP_PUT, "/2/redistribute-config", reason=reason)

    def ModifyCluster(self, reason: str | None = None, **kwargs: Any) -> Any:
        """Change parameters of the cluster."""
        return self._Job(HTTP_PUT, "/2/modify", content=kwargs, reason=reason)

    def GetClusterTags(self, reason: str | None = None) -> list[str]:
        """Tags of the cluster."""
        return self._GetTags("/2", reason)

    def AddClusterTags(
        self, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Add tags to the cluster."""
        return self._ChangeTags(HTTP_PUT, "/2", tags, dry_run, reason)

    def DeleteClusterTags(
        self, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Remove tags from the cluster."""
        return self._ChangeTags(HTTP_DELETE, "/2", tags, dry_run, reason)

    def _GetTags(self, path: str, reason: str | None) -> list[str]:
        tags: list[str] = self._Job(HTTP_GET, f"{path}/tags", reason=reason)
        return tags

    def _ChangeTags(
        self, method: str, path: str, tags: Sequence[str], dry_run: bool, reason: str | None
    ) -> Any:
        query = [("tag", tag) for tag in tags]
        return self._Job(method, f"{path}/tags", query, None, dry_run, reason)

    # Instances

    def GetInstances(self, bulk: bool = False, reason: str | None = None) -> list[Any]:
        """Names of all instances, or all about each of them."""
        return self._GetList("/2/instances", bulk, reason)

    def _GetList(self, path: str, bulk: bool, reason: str | None) -> list[Any]:
        items: list[Any] = self._Job(HTTP_GET, path, [("bulk", 1)] if bulk else [], reason=reason)
        return items if bulk else [item["id"] for item in items]

    def GetInstance(self, instance: str, reason: str | None = None) -> dict[str, Any]:
        """All about an instance."""
        found: dict[str, Any] = self._Job(HTTP_GET, self._Instance(instance), reason=reason)
        return found

    def GetInstanceInfo(
        self, instance: str, static: bool | None = None, reason: str | None = None
    ) -> Any:
        """Have everything found out about an instance; job id."""
        query = [] if static is None else [("static", static)]
        return self._Job(HTTP_GET, self._Instance(instance, "/info"), query, reason=reason)

    def CreateInstance(
        self,
        mode: str,
        name: str,
        disk_template: str,
        disks: Sequence[Mapping[str, Any]],
        nics: Sequence[Mapping[str, Any]],
        reason: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Create an instance.

        @param mode: C{create} or C{import}
        @param kwargs: more fields of the request; C{dry_run} to only check
        @raise GanetiApiError: a field that this server could not be told
        """
        dry_run = bool(kwargs.get("dry_run"))
        if INST_CREATE_REQV1 in self.GetFeatures():
            body = _MakeCreateBody1(mode, name, disk_template, disks, nics, kwargs)
        else:
            body = _MakeCreateBody0(name, disk_template, disks, nics, kwargs)
        body.pop("dry_run", None)
        return self._Job(HTTP_POST, "/2/instances", content=body, dry_run=dry_run, reason=reason)

    def DeleteInstance(
        self, instance: str, dry_run: bool = False, reason: str | None = None, **kwargs: Any
    ) -> Any:
        """Remove an instance."""
        path = self._Instance(instance)
        return self._Job(HTTP_DELETE, path, content=kwargs or None, dry_run=dry_run, reason=reason)

    def ModifyInstance(self, instance: str, reason: str | None = None, **kwargs: Any) -> Any:
        """Change an instance."""
        path = self._Instance(instance, "/modify")
        return self._Job(HTTP_PUT, path, content=kwargs, reason=reason)

    def ActivateInstanceDisks(
        self, instance: str, ignore_size: bool | None = None, reason: str | None = None
    ) -> Any:
        """Make the disks of an instance accessible."""
        query = [("ignore_size", 1)] if ignore_size else []
        return self._Job(
            HTTP_PUT, self._Instance(instance, "/activate-disks"), query, None, False, reason
        )

    def DeactivateInstanceDisks(self, instance: str, reason: str | None = None) -> Any:
        """Shut the disks of an instance down."""
        return self._Job(HTTP_PUT, self._Instance(instance, "/deactivate-disks"), reason=reason)

    def RecreateInstanceDisks(
        self,
        instance: str,
        disks: Sequence[int] | None = None,
        reason: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Make lost disks of an instance again."""
        body = dict(kwargs)
        if disks is not None:
            body["disks"] = list(disks)
        return self._Job(
            HTTP_POST, self._Instance(instance, "/recreate-disks"), content=body, reason=reason
        )

    def GrowInstanceDisk(
        self,
        instance: str,
        disk: int,
        amount: int,
        wait_for_sync: bool | None = None,
        reason: str | None = None,
    ) -> Any:
        """Make a disk bigger.

        @param amount: MiB to add
        """
        body: dict[str, Any] = {"amount": amount}
        if wait_for_sync is not None:
            body["wait_for_sync"] = wait_for_sync
        path = self._Instance(instance, f"/disk/{disk}/grow")
        return self._Job(HTTP_POST, path, content=body, reason=reason)

    def GetInstanceTags(self, instance: str, reason: str | None = None) -> list[str]:
        """Tags of an instance."""
        return self._GetTags(self._Instance(instance), reason)

    def AddInstanceTags(
        self, instance: str, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Add tags to an instance."""
        return self._ChangeTags(HTTP_PUT, self._Instance(instance), tags, dry_run, reason)

    def DeleteInstanceTags(
        self, instance: str, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Remove tags from an instance."""
        return self._ChangeTags(HTTP_DELETE, self._Instance(instance), tags, dry_run, reason)

    def RebootInstance(
        self,
        instance: str,
        reboot_type: str | None = None,
        ignore_secondaries: bool | None = None,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Any:
        """Reboot an instance.

        @param reboot_type: C{soft}, C{hard} or C{full}
        """
        query: Query = []
        if reboot_type:
            query.append(("type", reboot_type))
        if ignore_secondaries is not None:
            query.append(("ignore_secondaries", ignore_secondaries))
        path = self._Instance(instance, "/reboot")
        return self._Job(HTTP_POST, path, query, None, dry_run, reason)

    def ShutdownInstance(
        self, instance: str, dry_run: bool = False, reason: str | None = None, **kwargs: Any
    ) -> Any:
        """Shut an instance down; C{timeout}: seconds it has before it is killed."""
        path = self._Instance(instance, "/shutdown")
        return self._Job(HTTP_PUT, path, content=kwargs or None, dry_run=dry_run, reason=reason)

    def StartupInstance(
        self, instance: str, dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Start an instance."""
        path = self._Instance(instance, "/startup")
        return self._Job(HTTP_PUT, path, dry_run=dry_run, reason=reason)

    def ReinstallInstance(
        self,
        instance: str,
        os: str | None = None,
        no_startup: bool = False,
        osparams: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> Any:
        """Install an instance again.

        @param os: another OS; None = the same
        @raise GanetiApiError: OS parameters, and a server that does not know them
        """
        path = self._Instance(instance, "/reinstall")
        if osparams:
            if INST_REINSTALL_REQV1 not in self.GetFeatures():
                raise GanetiApiError("The server does not support OS parameters for reinstallation")
            body: dict[str, Any] = {"start": not no_startup, "osparams": dict(osparams)}
            if os is not None:
                body["os"] = os
            return self._Job(HTTP_POST, path, content=body, reason=reason)
        query: Query = []
        if os:
            query.append(("os", os))
        if no_startup:
            query.append(("nostartup", 1))
        return self._Job(HTTP_POST, path, query, reason=reason)

    def ReplaceInstanceDisks(
        self,
        instance: str,
        disks: Sequence[int] | None = None,
        mode: str = REPLACE_DISK_AUTO,
        remote_node: str | None = None,
        iallocator: str | None = None,
        dry_run: bool = False,
        reason: str | None = None,
        early_release: bool | None = None,
    ) -> Any:
        """Replace disks of an instance.

        @param disks: indexes; None = all
        @param mode: C{REPLACE_DISK_*}
        """
        query: Query = [("mode", mode)]
        if disks is not None:
            query.append(("disks", ",".join(map(str, disks))))
        if remote_node is not None:
            query.append(("remote_node", remote_node))
        if iallocator is not None:
            query.append(("iallocator", iallocator))
        if early_release is not None:
            query.append(("early_release", early_release))
        path = self._Instance(instance, "/replace-disks")
        return self._Job(HTTP_POST, path, query, None, dry_run, reason)

    def MigrateInstance(self, instance: str, reason: str | None = None, **kwargs: Any) -> Any:
        """Move a running instance to its secondary node."""
        path = self._Instance(instance, "/migrate")
        return self._Job(HTTP_PUT, path, content=kwargs, reason=reason)

    def FailoverInstance(self, instance: str, reason: str | None = None, **kwargs: Any) -> Any:
        """Stop an instance and start it on its secondary node."""
        path = self._Instance(instance, "/failover")
        return self._Job(HTTP_PUT, path, content=kwargs, reason=reason)

    def RenameInstance(
        self, instance: str, new_name: str, reason: str | None = None, **kwargs: Any
    ) -> Any:
        """Give an instance another name."""
        path = self._Instance(instance, "/rename")
        body = {"new_name": new_name, **kwargs}
        return self._Job(HTTP_PUT, path, content=body, reason=reason)

    def ExportInstance(
        self,
        instance: str,
        mode: str,
        destination: str,
        shutdown: bool | None = None,
        reason: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Export an instance.

        @param mode: C{local}
        @param destination: node that keeps the export
        """
        body = {"destination": destination, "mode": mode, **kwargs}
        if shutdown is not None:
            body["shutdown"] = shutdown
        path = self._Instance(instance, "/export")
        return self._Job(HTTP_PUT, path, content=body, reason=reason)

    def GetInstanceConsole(self, instance: str, reason: str | None = None) -> dict[str, Any]:
        """How to reach the console of an instance."""
        path = self._Instance(instance, "/console")
        console: dict[str, Any] = self._Job(HTTP_GET, path, reason=reason)
        return console

    # Jobs

    def GetJobs(self, bulk: bool = False) -> list[Any]:
        """Ids of all jobs, as numbers; or all about each of them."""
        jobs = self._GetList("/2/jobs", bulk, None)
        return jobs if bulk else [int(job_id) for job_id in jobs]

    def GetJobStatus(self, job_id: int | str) -> dict[str, Any]:
        """All about a job."""
        job: dict[str, Any] = self._SendRequest(HTTP_GET, f"/2/jobs/{job_id}")
        return job

    def WaitForJobCompletion(self, job_id: int | str, period: float = 5, retries: int = -1) -> bool:
        """Wait for the end of a job; was it a success?

        @param period: seconds between looks at it
        @param retries: looks at it after the first one; -1 = until the end
        """
        while True:
            status = self.GetJobStatus(job_id)["status"]
            if status in JOB_STATUS_FINALIZED:
                return bool(status == JOB_STATUS_SUCCESS)
            if retries == 0:
                return False
            retries -= 1 if retries > 0 else 0
            self._sleep(period)

    def WaitForJobChange(
        self,
        job_id: int | str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
    ) -> dict[str, Any] | None:
        """Wait until a job changes, but not for long.

        @return: None if nothing changed, else C{job_info} and C{log_entries}
        """
        body = {
            "fields": list(fields),
            "previous_job_info": prev_job_info,
            "previous_log_serial": prev_log_serial,
        }
        change: dict[str, Any] | None = self._SendRequest(
            HTTP_GET, f"/2/jobs/{job_id}/wait", content=body
        )
        return change

    def CancelJob(self, job_id: int | str, dry_run: bool = False) -> list[Any]:
        """Cancel a job; [was or will it be cancelled, text]."""
        result: list[Any] = self._Job(HTTP_DELETE, f"/2/jobs/{job_id}", dry_run=dry_run)
        return result

    # Nodes

    def GetNodes(self, bulk: bool = False, reason: str | None = None) -> list[Any]:
        """Names of all nodes, or all about each of them."""
        return self._GetList("/2/nodes", bulk, reason)

    def GetNode(self, node: str, reason: str | None = None) -> dict[str, Any]:
        """All about a node."""
        found: dict[str, Any] = self._Job(HTTP_GET, self._Node(node), reason=reason)
        return found

    def EvacuateNode(
        self,
        node: str,
        iallocator: str | None = None,
        remote_node: str | None = None,
        dry_run: bool = False,
        early_release: bool | None = None,
        mode: str | None = None,
        accept_old: bool = True,
        reason: str | None = None,
    ) -> Any:
        """Move the secondaries of a node away.

        @param accept_old: for clients of later versions; the answer always is one job
        @raise GanetiApiError: both an allocator and a node, or a mode other than C{secondary-only}
        """
        if iallocator and remote_node:
            raise GanetiApiError("Only one of iallocator and remote_node can be used")
        if mode not in (None, NODE_EVAC_SEC):
            raise GanetiApiError(f"The server can't evacuate with mode {mode!r}")
        query: Query = []
        if iallocator:
            query.append(("iallocator", iallocator))
        if remote_node:
            query.append(("remote_node", remote_node))
        if early_release:
            query.append(("early_release", 1))
        return self._Job(HTTP_POST, self._Node(node, "/evacuate"), query, None, dry_run, reason)

    def MigrateNode(
        self,
        node: str,
        live: bool = True,
        dry_run: bool = False,
        mode: str | None = None,
        reason: str | None = None,
        iallocator: str | None = None,
        target_node: str | None = None,
    ) -> Any:
        """Migrate all primaries of a node away: those with mirrors to their secondaries.

        @param live: keep them running meanwhile
        @param mode: C{live} or C{non-live}, instead
        @param iallocator: chooses where those go that can go to any node
        @param target_node: where they go, instead
        """
        query: Query = [("live", bool(live))] if mode is None else [("mode", mode)]
        choice = {"iallocator": iallocator, "target_node": target_node}
        body = {key: value for key, value in choice.items() if value is not None} or None
        return self._Job(HTTP_POST, self._Node(node, "/migrate"), query, body, dry_run, reason)

    def GetNodeRole(self, node: str, reason: str | None = None) -> str:
        """Role of a node, C{NODE_ROLE_*}."""
        role: str = self._Job(HTTP_GET, self._Node(node, "/role"), reason=reason)
        return role

    def SetNodeRole(
        self,
        node: str,
        role: str,
        force: bool = False,
        auto_promote: bool | None = None,
        reason: str | None = None,
    ) -> Any:
        """Give a node another role."""
        query: Query = [("force", bool(force))]
        if auto_promote is not None:
            query.append(("auto-promote", auto_promote))
        return self._Job(HTTP_PUT, self._Node(node, "/role"), query, role, False, reason)

    def PowercycleNode(self, node: str, force: bool = False, reason: str | None = None) -> Any:
        """Reset a node."""
        query = [("force", bool(force))]
        return self._Job(HTTP_POST, self._Node(node, "/powercycle"), query, None, False, reason)

    def ModifyNode(self, node: str, reason: str | None = None, **kwargs: Any) -> Any:
        """Change parameters of a node."""
        return self._Job(HTTP_POST, self._Node(node, "/modify"), content=kwargs, reason=reason)

    def GetNodeStorageUnits(
        self, node: str, storage_type: str, output_fields: str, reason: str | None = None
    ) -> Any:
        """Have the storage units of a node listed; job id.

        @param output_fields: names with commas between
        """
        query = [("storage_type", storage_type), ("output_fields", output_fields)]
        return self._Job(HTTP_GET, self._Node(node, "/storage"), query, reason=reason)

    def ModifyNodeStorageUnits(
        self,
        node: str,
        storage_type: str,
        name: str,
        allocatable: bool | None = None,
        reason: str | None = None,
    ) -> Any:
        """Change a storage unit of a node."""
        query: Query = [("storage_type", storage_type), ("name", name)]
        if allocatable is not None:
            query.append(("allocatable", bool(allocatable)))
        return self._Job(HTTP_PUT, self._Node(node, "/storage/modify"), query, reason=reason)

    def RepairNodeStorageUnits(
        self, node: str, storage_type: str, name: str, reason: str | None = None
    ) -> Any:
        """Repair a storage unit of a node."""
        query = [("storage_type", storage_type), ("name", name)]
        return self._Job(HTTP_PUT, self._Node(node, "/storage/repair"), query, reason=reason)

    def GetNodeTags(self, node: str, reason: str | None = None) -> list[str]:
        """Tags of a node."""
        return self._GetTags(self._Node(node), reason)

    def AddNodeTags(
        self, node: str, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Add tags to a node."""
        return self._ChangeTags(HTTP_PUT, self._Node(node), tags, dry_run, reason)

    def DeleteNodeTags(
        self, node: str, tags: Sequence[str], dry_run: bool = False, reason: str | None = None
    ) -> Any:
        """Remove tags from a node."""
        return self._ChangeTags(HTTP_DELETE, self._Node(node), tags, dry_run, reason)

    # What later versions have

    def GetGroups(self, bulk: bool = False, reason: str | None = None) -> list[Any]:
        """Names of all node groups, or all about each of them."""
        query = [("bulk", 1)] if bulk else []
        groups: list[Any] = self._Job(HTTP_GET, "/2/groups", query, reason=reason)
        return groups if bulk else [group["name"] for group in groups]

    def GetGroup(self, group: str, reason: str | None = None) -> dict[str, Any]:
        """All about a node group."""
        found: dict[str, Any] = self._Job(HTTP_GET, f"/2/groups/{group}", reason=reason)
        return found

    def Query(
        self, what: str, fields: Sequence[str], qfilter: Any = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Rows of one kind of object, each value with its status."""
        body: dict[str, Any] = {"fields": list(fields)}
        if qfilter is not None:
            body["qfilter"] = body["filter"] = qfilter
        answer: dict[str, Any] = self._Job(
            HTTP_PUT, f"/2/query/{what}", content=body, reason=reason
        )
        return answer

    def QueryFields(
        self, what: str, fields: Sequence[str] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Definitions of the fields of one kind of object."""
        query = [] if fields is None else [("fields", ",".join(fields))]
        path = f"/2/query/{what}/fields"
        answer: dict[str, Any] = self._Job(HTTP_GET, path, query, reason=reason)
        return answer


def _FormatError(status: int, answer: Any) -> str:
    if isinstance(answer, dict) and "message" in answer:
        return f"{answer.get('code', status)} {answer['message']}: {answer.get('explain', '')}"
    return f"The server answered with status {status}"


def _MakeCreateBody1(
    mode: str,
    name: str,
    disk_template: str,
    disks: Sequence[Mapping[str, Any]],
    nics: Sequence[Mapping[str, Any]],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of instance creation, format 1."""
    body: dict[str, Any] = {
        _FORMAT_1_VERSION: 1,
        "mode": mode,
        "name": name,
        "disk_template": disk_template,
        "disks": list(disks),
        "nics": list(nics),
    }
    conflicts = sorted(body.keys() & kwargs.keys())
    if conflicts:
        raise GanetiApiError(f"Required fields given as keywords: {', '.join(conflicts)}")
    body.update(kwargs)
    return body


def _MakeCreateBody0(
    name: str,
    disk_template: str,
    disks: Sequence[Mapping[str, Any]],
    nics: Sequence[Mapping[str, Any]],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of instance creation, format 0. Raises GanetiApiError for what it can't say."""
    for index, disk in enumerate(disks):
        unknown = sorted(disk.keys() - {"size"})
        if unknown:
            raise GanetiApiError(
                f"The server takes only the size of disks; disk {index} has {', '.join(unknown)}"
            )
        if "size" not in disk:
            raise GanetiApiError(f"Disk {index} has no size")
    if len(nics) != 1:
        raise GanetiApiError(f"The server takes exactly one network interface, not {len(nics)}")
    unknown = sorted(nics[0].keys() - _FORMAT_0_NIC_FIELDS)
    if unknown:
        raise GanetiApiError(f"The server does not know {', '.join(unknown)} of a NIC")
    unknown = sorted(kwargs.keys() - _FORMAT_0_FIELDS)
    if unknown:
        raise GanetiApiError(f"The server does not know the fields {', '.join(unknown)}")
    body: dict[str, Any] = {
        "name": name,
        "disk_template": disk_template,
        "disks": [disk["size"] for disk in disks],
        **nics[0],
    }
    for key, value in kwargs.items():
        if key in ("beparams", "hvparams"):
            body.update(value)
        else:
            body[key] = value
    return body
