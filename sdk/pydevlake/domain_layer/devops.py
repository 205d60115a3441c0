"""Pipelines, their tasks, and the scope that they belong to."""

from datetime import datetime
from enum import Enum
from typing import Optional

from pydevlake.fields import Field
from pydevlake.model import DomainModel, DomainScope, NoPKModel


class CICDResult(Enum):
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    RESULT_DEFAULT = ""


class CICDStatus(Enum):
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    STATUS_OTHER = "OTHER"


class CICDType(Enum):
    TEST = "TEST"
    LINT = "LINT"
    BUILD = "BUILD"
    DEPLOYMENT = "DEPLOYMENT"


class CICDEnvironment(Enum):
    PRODUCTION = "PRODUCTION"
    STAGING = "STAGING"
    TESTING = "TESTING"
    EMPTY = ""


class CICDPipeline(DomainModel, table=True):
    __tablename__ = "cicd_pipelines"

    name: Optional[str] = None
    cicd_scope_id: Optional[str] = None
    status: Optional[CICDStatus] = None
    result: Optional[CICDResult] = None
    original_status: Optional[str] = None
    original_result: Optional[str] = None
    created_date: Optional[datetime] = None
    started_date: Optional[datetime] = None
    queued_date: Optional[datetime] = None
    finished_date: Optional[datetime] = None
    duration_sec: Optional[float] = None
    queued_duration_sec: Optional[float] = None
    type: Optional[CICDType] = None
    environment: Optional[CICDEnvironment] = None
    display_title: Optional[str] = None
    url: Optional[str] = None


class CiCDPipelineCommit(NoPKModel, table=True):
    __tablename__ = "cicd_pipeline_commits"

    pipeline_id: str = Field(primary_key=True)
    commit_sha: str = Field(primary_key=True)
    branch: Optional[str] = None
    repo_id: Optional[str] = None
    repo_url: Optional[str] = None
    display_title: Optional[str] = None
    url: Optional[str] = None


class CicdScope(DomainScope, table=True):
    # The server reads this one's JSON in camelCase, without tags of its own: hence the names.
    __tablename__ = "cicd_scopes"

    name: Optional[str] = None
    description: Optional[str] = None
    url: Optional[str] = None
    createdDate: Optional[datetime] = Field(default=None, sa_column_kwargs={"name": "created_date"})
    updatedDate: Optional[datetime] = Field(default=None, sa_column_kwargs={"name": "updated_date"})


class CICDTask(DomainModel, table=True):
    __tablename__ = "cicd_tasks"

    name: Optional[str] = None
    pipeline_id: Optional[str] = None
    cicd_scope_id: Optional[str] = None
    result: Optional[CICDResult] = None
    status: Optional[CICDStatus] = None
    original_status: Optional[str] = None
    original_result: Optional[str] = None
    type: Optional[CICDType] = None
    environment: Optional[CICDEnvironment] = None
    created_date: Optional[datetime] = None
    queued_date: Optional[datetime] = None
    started_date: Optional[datetime] = None
    finished_date: Optional[datetime] = None
    duration_sec: Optional[float] = None
    queued_duration_sec: Optional[float] = None
