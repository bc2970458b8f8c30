// Every component in one place, to be looked at. Served in demo mode.

import { useState } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { Shell } from '../app/shell';
import { Badge, Button, Card, Checkbox, Copy, Empty, Fold, IconButton, Input, Select, Skeleton, Spinner, TextArea } from '../ui/basic';
import { Chart } from '../ui/chart';
import { confirm, Dialog, prompt } from '../ui/dialog';
import { Menu } from '../ui/menu';
import { openPalette } from '../ui/palette';
import { Table } from '../ui/table';
import { Tabs } from '../ui/tabs';
import { toast } from '../ui/toast';

interface Row { name: string; state: string; calls: number }
const rows: Row[] = Array.from({ length: 60 }, (_, i) => ({ name: `agent-${i + 1}`, state: i % 3 ? 'online' : 'offline', calls: (i * 7919) % 1000 }));
const days = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

export default function Components(_: PageProps) {
  const [open, setOpen] = useState(false);
  return (
    <Shell side={<nav class="nav" aria-label="Sections"><a href="./">Chat</a><a href="dev/components" aria-current="page">Components</a></nav>} sideLabel="Navigation" title={<h1>Components</h1>}>
      <div class="content">
        <Card title="Buttons">
          <div class="row"><Button kind="primary">Primary</Button><Button>Plain</Button><Button kind="danger" icon="trash">Danger</Button><Button kind="ghost" icon="edit">Ghost</Button>
            <Button disabled>Disabled</Button><Button busy>Busy</Button><IconButton icon="settings" label="Settings" /><Copy value={() => 'text'} /></div>
          <div class="row"><Menu label="Menu" icon="down" items={[{ label: 'Rename', icon: 'edit', run: () => toast('Rename') }, { label: 'Archive', icon: 'archive', run: () => toast('Archive') }, { label: 'Delete', icon: 'trash', danger: true, run: () => toast('Delete') }]} />
            <Menu label="More" icon="more" compact items={[{ label: 'One', run: () => {} }, { label: 'Two', disabled: true, run: () => {} }]} />
            <Button onClick={() => setOpen(true)}>Dialog</Button><Button onClick={() => void confirm({ title: 'Delete it?', body: 'It cannot be undone.', action: 'Delete', danger: true })}>Confirm</Button>
            <Button onClick={() => void prompt({ title: 'Rename', label: 'Title', action: 'Rename', value: 'Old' })}>Prompt</Button><Button onClick={openPalette}>Palette</Button>
            <Button onClick={() => toast('Saved', 'good')}>Toast</Button><Button onClick={() => toast('That did not work: the name is taken', 'bad')}>Error</Button></div>
        </Card>
        <Card title="Forms">
          <div class="grid"><Input label="Name" hint="As people call it" value="Ada" /><Input label="Port" value="x" error="must be a number from 1 to 65535" /><Select label="Role" options={[{ value: 'a', label: 'Member' }, { value: 'b', label: 'Admin' }]} /><TextArea label="Notes" placeholder="Anything" /></div>
          <Checkbox label="Ask before tools run" hint="For this agent only" checked />
        </Card>
        <Card title="Signs"><div class="row"><Badge>neutral</Badge><Badge tone="good">online</Badge><Badge tone="bad">failed</Badge><Badge tone="warn">waiting</Badge><Badge tone="accent">new</Badge><Spinner label="Loading…" /></div><Skeleton /></Card>
        <Card title="Table"><Table caption="Agents" rows={rows} rowKey={(r) => r.name} words={(r) => `${r.name} ${r.state}`} empty="No agents" pageSize={8} sortBy="name" columns={[
          { id: 'name', title: 'Name', cell: (r) => r.name, sort: (r) => r.name },
          { id: 'state', title: 'State', cell: (r) => <Badge tone={r.state === 'online' ? 'good' : 'neutral'}>{r.state}</Badge>, sort: (r) => r.state },
          { id: 'calls', title: 'Calls', cell: (r) => r.calls, sort: (r) => r.calls, numeric: true },
        ]} /></Card>
        <Card title="Tabs and folds">
          <Tabs label="Example" tabs={[{ id: 'a', label: 'First', content: () => <p>The first one.</p> }, { id: 'b', label: 'Second', content: () => <Empty icon="mail" title="No mail">It comes by itself.</Empty> }]} />
          <Fold summary="web" open><Fold summary="src" open><Fold summary="ui"><p>basic.tsx</p></Fold><p>main.tsx</p></Fold></Fold>
        </Card>
        <div class="grid">
          <Card title="Bars"><Chart title="Calls of the week" kind="bar" labels={days} series={[{ name: 'Calls', values: [12, 31, 22, 18, 40, 5, 3] }]} /></Card>
          <Card title="Lines"><Chart title="Tokens of the week" kind="line" labels={days} series={[{ name: 'In', values: [900, 1200, 800, 1500, 1700, 300, 200] }, { name: 'Out', values: [300, 420, 310, 600, 640, 90, 70] }]} /></Card>
        </div>
      </div>
      <Dialog title="A dialog" open={open} onClose={() => setOpen(false)} actions={<Button kind="primary" onClick={() => setOpen(false)}>Fine</Button>}><p>It keeps the focus, and Escape closes it.</p></Dialog>
    </Shell>
  );
}
